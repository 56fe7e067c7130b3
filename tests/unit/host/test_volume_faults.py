"""The faults that a seed gives for those who keep a volume's replicas."""

import pytest

from trivet.testing.lab.volume_faults import PROGRAMS, Harm, VolumeFault, Whose, drawn

EACH = 2 * len(Harm) - 1
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
        assert (fault.seconds == 0) == (fault.harm in PROGRAMS)


@pytest.mark.parametrize("word", ["", "kill", "kill-n2+1", "burn-holder+1", "kill-holder+x"])
def test_another_word_is_none(word):
    with pytest.raises(ValueError, match=r"."):
        VolumeFault.parse(word)


def test_a_guest_starts_again_only_where_its_node_died():
    again = [str(f) for f in drawn(4, EACH) if f.ends_guest]
    assert len(again) == 1
    assert again[0].startswith("kill-holder+")
