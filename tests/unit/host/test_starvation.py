"""The bus is started anew after its disk was full, once there is room, and only then."""

import pytest

from trivet.host.starvation import FULL_BYTES, ROOM_BYTES, Space

FULL, SOME, ROOM = 0, FULL_BYTES, ROOM_BYTES


@pytest.mark.parametrize(
    ("looks", "anew"),
    [
        ([ROOM], False),
        ([SOME, ROOM], False),
        ([FULL], False),
        ([FULL, SOME], False),
        ([FULL, ROOM], True),
        ([ROOM, FULL, SOME, ROOM], True),
    ],
)
def test_only_a_disk_that_was_full_and_has_room_again_counts(looks: list[int], anew: bool):
    space = Space()
    for free_bytes in looks:
        space = space.seen(free_bytes)
    assert space.start_anew(looks[-1]) is anew
