"""A watch says that all was told only when it has come to what the stream's leader has."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from trivet.runtime.nats_link import ApiError
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.nats_tail import NO_MESSAGE, Delivery
from trivet.runtime.store import Change, Synced

SUBJECT = "$KV.b.>"
IDLE = None


class Leader:
    """A link on which the stream's leader says what is the newest, one answer after the other
    (the last for ever); 0: there is nothing."""

    def __init__(self, *newest: int) -> None:
        self._newest = list(newest)

    async def api(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert subject == "STREAM.MSG.GET.KV_b"
        assert body == {"last_by_subj": SUBJECT}
        seq = self._newest.pop(0) if len(self._newest) > 1 else self._newest[0]
        if seq == 0:
            raise ApiError(404, NO_MESSAGE, "no message found")
        return {"message": {"seq": seq, "time": "2026-01-01T00:00:00.123456789Z"}}


class Life:
    """A consumer's life that delivers what it is given."""

    def __init__(self, *steps: Delivery | None, waiting: int = 0) -> None:
        self._steps = steps
        self.waiting = waiting
        self.last_seq = 99

    async def deliveries(self) -> AsyncGenerator[Delivery | None, None]:
        for step in self._steps:
            yield step


def at(seq: int, pending: int = 0) -> Delivery:
    """The key `k<seq>` at that revision, with so many more waiting."""
    return Delivery(seq, f"$KV.b.k{seq}", {}, b"x", pending)


async def told(leader: Leader, life: Life, known: dict[str, int]) -> str:
    """The steps in short: `+k1` a value, `-k1` a deletion, `S` synced."""
    store = NatsStore(leader, "b")  # type: ignore[arg-type]
    said = []
    async for step in store._follow(life, SUBJECT, known):  # type: ignore[arg-type]
        if isinstance(step, Synced):
            said.append("S")
        else:
            assert isinstance(step, Change)
            said.append(f"{'-' if step.value is None else '+'}{step.key}")
    return " ".join(said)


@pytest.mark.parametrize(
    ("leader", "life", "known", "steps"),
    [
        pytest.param((0,), Life(), {}, "S", id="nothing is there"),
        pytest.param((0,), Life(), {"k1": 1}, "-k1 S", id="nothing is there any more"),
        pytest.param((2,), Life(at(1, 1), at(2), waiting=2), {}, "+k1 +k2 S", id="all at once"),
        pytest.param(
            (2,), Life(at(1, 1), at(2), IDLE, waiting=2), {}, "+k1 +k2 S", id="synced once"
        ),
        pytest.param((3,), Life(IDLE, at(3)), {"k3": 3}, "S", id="a server that has nothing yet"),
        pytest.param(
            (3,),
            Life(at(1), IDLE, at(2), IDLE, at(3), waiting=1),
            {"k2": 2, "k3": 3},
            "+k1 S",
            id="one that is behind: what it has not yet has not vanished",
        ),
        pytest.param(
            (3,), Life(at(1), IDLE, waiting=1), {"k3": 3}, "+k1", id="one that never gets there"
        ),
        pytest.param(
            (3, 1), Life(at(1), IDLE, waiting=1), {"k3": 3}, "+k1 -k3 S", id="the newest faded"
        ),
        pytest.param((2,), Life(at(2), at(5), waiting=1), {}, "+k2 S +k5", id="and then changes"),
    ],
)
async def test_what_is_told(
    leader: tuple[int, ...], life: Life, known: dict[str, int], steps: str
) -> None:
    assert await told(Leader(*leader), life, known) == steps
