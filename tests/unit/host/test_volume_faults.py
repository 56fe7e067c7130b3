"""The faults that a seed gives for those who keep a volume's replicas."""

import random

import pytest

from trivet.testing.lab.volume_faults import (
    AT_ONCE,
    EVERY,
    Harm,
    VolumeFault,
    Whose,
    drawn,
    of_seed,
    rot,
)

EACH = len(EVERY)
"""The graph is the holder's alone."""


def test_a_seed_gives_the_same_faults_again_and_another_others():
    assert drawn(1, 30) == drawn(1, 30)
    assert drawn(1, 30) != drawn(2, 30)
    assert drawn(1, 30)[:5] == drawn(1, 5)


@pytest.mark.parametrize("seed", range(5))
def test_each_comes_before_one_comes_again(seed):
    faults = [(fault.harm, fault.whose) for fault in drawn(seed, 2 * EACH)]
    assert len(set(faults[:EACH])) == len(set(faults[EACH:])) == EACH
    assert (Harm.GRAPH, Whose.REPLICA) not in faults


def test_a_fault_is_a_word():
    for fault in drawn(3, 2 * EACH):
        assert VolumeFault.parse(str(fault)) == fault
        assert (fault.seconds == 0) == (fault.harm in AT_ONCE)


@pytest.mark.parametrize("word", ["", "kill", "kill-n2+1", "burn-holder+1", "kill-holder+x"])
def test_another_word_is_none(word):
    with pytest.raises(ValueError, match=r"."):
        VolumeFault.parse(word)


def test_a_guest_starts_again_only_where_its_node_died():
    again = [str(f) for f in drawn(4, EACH) if f.ends_guest]
    assert len(again) == 1
    assert again[0].startswith("kill-holder+")


def test_seeds_of_a_campaign_have_each_kind_once_before_one_comes_again():
    turns = [[of_seed(turn * EACH + place) for place in range(EACH)] for turn in range(2)]
    for turn in turns:
        assert {(f.harm, f.whose) for f in turn} == set(EVERY)
    assert turns[0] != turns[1]
    assert of_seed(7) == turns[0][7]


def test_rot_is_one_bit_of_what_a_file_has(tmp_path):
    file = tmp_path / "replica.raw"
    with file.open("wb") as held:
        held.seek(2**20)
        held.write(b"x" * 4096)
        held.truncate(2**21)
    before = file.read_bytes()
    place = rot(file, random.Random(3))
    after = file.read_bytes()
    assert 2**20 <= place < 2**20 + 4096
    assert [n for n in range(2**21) if before[n] != after[n]] == [place]
    assert (before[place] ^ after[place]).bit_count() == 1
