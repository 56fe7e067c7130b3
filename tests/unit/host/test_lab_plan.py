"""The lab's plan: what nodes are called and where they are, from one value."""

import pytest

from trivet.contracts.errors import Refused
from trivet.testing.lab.plan import LabPlan, load_plan


def plan(tmp_path, **changes):
    return LabPlan(**{"root": tmp_path, "nodes": 3, "net": 7, **changes})


def test_nodes_are_numbered_and_a_witness_is_one_more(tmp_path):
    assert plan(tmp_path).names == ("n1", "n2", "n3")
    with_witness = plan(tmp_path, nodes=2, witness=True)
    assert with_witness.names == ("n1", "n2", "witness")
    assert with_witness.workers == ("n1", "n2")
    assert with_witness.place("witness").witness
    assert not with_witness.place("n1").witness


@pytest.mark.parametrize(("said", "meant"), [("2", "n2"), ("n2", "n2")])
def test_a_bare_number_is_a_node(tmp_path, said, meant):
    assert plan(tmp_path).node(said) == meant


@pytest.mark.parametrize("said", ["4", "n0", "witness", "", "all"])
def test_a_node_that_is_not_there_is_refused_with_those_that_are(tmp_path, said):
    with pytest.raises(Refused) as refused:
        plan(tmp_path).node(said)
    assert "n1, n2, n3" in (refused.value.hint or "")


def test_no_address_and_no_folder_is_had_twice(tmp_path):
    made = plan(tmp_path, nodes=9, witness=True)
    addresses = [made.address(name, net) for name in made.names for net in ("mgmt", "storage")]
    assert len({*addresses, made.host_address}) == len(addresses) + 1
    assert len({made.layout(name).root for name in made.names}) == 10


def test_a_plan_is_found_again(tmp_path):
    assert load_plan(tmp_path) is None
    made = plan(tmp_path)
    made.file.write_text(made.model_dump_json())
    assert load_plan(tmp_path) == made
