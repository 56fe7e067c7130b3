"""The faults that a seed gives for a cluster's nodes."""

import pytest

from trivet.testing.lab.cluster_faults import NodeFault, What, drawn

NODES = ("n1", "n2", "n3")


def test_a_seed_gives_the_same_faults_again_and_another_others():
    assert drawn(1, 20, NODES) == drawn(1, 20, NODES)
    assert drawn(1, 20, NODES) != drawn(2, 20, NODES)
    assert drawn(1, 20, NODES)[:5] == drawn(1, 5, NODES)


@pytest.mark.parametrize("seed", range(5))
def test_each_kind_comes_before_one_comes_again(seed):
    kinds = [fault.what for fault in drawn(seed, 2 * len(What), NODES)]
    assert set(kinds[: len(What)]) == set(kinds[len(What) :]) == set(What)


def test_a_fault_is_a_word():
    for fault in drawn(3, 20, NODES):
        assert NodeFault.parse(str(fault)) == fault


@pytest.mark.parametrize("word", ["", "kill", "kill-n2", "kill-2+1", "burn-n2+1", "kill-n2+x"])
def test_another_word_is_none(word):
    with pytest.raises(ValueError, match=r"."):
        NodeFault.parse(word)
