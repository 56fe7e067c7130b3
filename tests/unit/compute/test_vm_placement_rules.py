"""Placement: a sentence for every node, the same answer in any order, and the ledger's sums."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.compute.domain.capacity import (
    allocatable_memory_mib,
    need_of,
    no_room,
    stale_promises,
    summed,
    with_promise,
    without_promise,
)
from trivet.compute.domain.placement import effective_spec, place, view
from trivet.contracts.compute.node import (
    Accel,
    Inventory,
    Node,
    NodeSpec,
    NodeStatus,
    Promise,
)
from trivet.contracts.compute.placement import CpuRoom, NodeView
from trivet.contracts.compute.vm import CpuTuning, Placement, Vm, VmSpec, VmStatus
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase

NOW = datetime(2030, 1, 1, tzinfo=UTC)
INVENTORY = Inventory(
    hypervisor="x",
    hypervisor_version="1",
    accel=Accel.TCG,
    accel_reason="",
    cpus=2,
    memory_mib=5120,
)


def make_view(name: str = "n1", **changes: object) -> NodeView:
    base: dict[str, object] = {
        "name": name,
        "ready": True,
        "maintenance": False,
        "cpus": 2,
        "allocatable_vcpus": 16,
        "allocatable_memory_mib": 4096,
        "used_vcpus": 0,
        "used_memory_mib": 0,
    }
    room = CpuRoom(cpus=2, overcommit=8.0, used_vcpus=int(str(changes.get("used_vcpus", 0))))
    base["room"] = room
    return NodeView(**{**base, **changes})  # type: ignore[arg-type]


def make_vm(name: str, node: str | None = None, **placement: object) -> Vm:
    return Vm(
        meta=Meta(id=ResourceId(f"vm-{name}"), name=name, project="p", created_at=NOW),
        spec=VmSpec(placement=Placement.model_validate(placement)),
        status=VmStatus(node=node),
    )


def make_node(**spec: object) -> Node:
    node_spec = NodeSpec.model_validate(spec)
    node = Node(
        meta=Meta(id=ResourceId("node-1"), name="n1", created_at=NOW),
        spec=node_spec,
        status=NodeStatus(
            phase=Phase.READY,
            inventory=INVENTORY,
            allocatable_memory_mib=allocatable_memory_mib(node_spec, INVENTORY),
        ),
    )
    return summed(node)


BIG = VmSpec(vcpus=4, memory_mib=4096)


@pytest.mark.parametrize(
    ("spec", "node", "why"),
    [
        (BIG, make_view(ready=False), "is not ready"),
        (BIG, make_view(maintenance=True), "is in maintenance"),
        (BIG, make_view(used_memory_mib=3072), "needs 4096 MiB, 1024 MiB free"),
        (BIG, make_view(used_memory_mib=9000), "needs 4096 MiB, 0 MiB free"),
        (BIG, make_view(used_vcpus=13), "needs 4 vcpus, 3 of 16 free"),
        (VmSpec(firmware="uefi"), make_view(), "has no uefi firmware"),
        (
            VmSpec(cpu=CpuTuning(pin=(5,))),
            make_view(),
            "has 2 processors, cpu.pin names 5",
        ),
        (
            VmSpec(placement=Placement(nodes=("n2", "n3"))),
            make_view(),
            "is none of placement.nodes (n2, n3)",
        ),
        (
            VmSpec(placement=Placement(keep_apart=("a", "b"))),
            make_view(vms=("b", "c")),
            "runs b, which is to be kept apart",
        ),
        (
            VmSpec(placement=Placement(keep_together=("a",))),
            make_view(vms=("b",)),
            "does not run a, which is to be kept together",
        ),
        (BIG, make_view(maintenance=True, ready=False), "is not ready, is in maintenance"),
    ],
)
def test_why_not(spec: VmSpec, node: NodeView, why: str) -> None:
    decision = place(spec, [node])
    assert decision.node is None
    assert decision.explain() == f"n1: {why}"


def test_spreads_and_explains_every_node() -> None:
    nodes = [make_view("n1", used_memory_mib=2048), make_view("n2"), make_view("n3", ready=False)]
    decision = place(VmSpec(), nodes)
    assert decision.node == "n2"
    assert [v.node for v in decision.verdicts] == ["n2", "n1", "n3"]
    assert "n2: can take it, score" in decision.explain()
    assert "n3: is not ready" in decision.explain()
    assert place(VmSpec(), []).explain() == "there are no nodes"


def test_wishes_outweigh_spreading_and_never_refuse() -> None:
    wish = VmSpec(placement=Placement(nodes=("n1",), strength="prefer"))
    assert place(wish, [make_view("n1", used_memory_mib=3000), make_view("n2")]).node == "n1"
    assert place(wish, [make_view("n1", ready=False), make_view("n2")]).node == "n2"


def test_keeping_apart_is_mutual_and_together_binds_only_to_the_placed() -> None:
    shy = make_vm("shy", "n1", keep_apart=["web"])
    web = make_vm("web", keep_together=["db", "later"])
    spec = effective_spec(web, [shy, make_vm("db", "n2"), make_vm("later"), web])
    assert spec.placement.keep_apart == ("shy",)
    assert spec.placement.keep_together == ("db",)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 5000), st.integers(0, 20)), max_size=6
    ).flatmap(
        lambda rows: st.tuples(
            st.just(
                [
                    make_view(f"n{i}", ready=r, used_memory_mib=m, used_vcpus=c)
                    for i, (r, m, c) in enumerate(rows)
                ]
            ),
            st.randoms(use_true_random=False),
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_the_order_of_nodes_does_not_matter_and_a_chosen_one_has_room(drawn: object) -> None:
    nodes, random = drawn  # type: ignore[misc]
    decision = place(VmSpec(), nodes)
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert place(VmSpec(), shuffled) == decision
    assert len(decision.verdicts) == len(nodes)
    chosen = [n for n in nodes if n.name == decision.node]
    assert all(n.ready and n.used_memory_mib + 512 <= 4096 and n.used_vcpus < 16 for n in chosen)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(16, 2048)), max_size=20)
)
def test_the_ledger_is_its_own_sum_and_never_over_what_there_is(
    claims: list[tuple[int, int, int]],
) -> None:
    node = make_node()
    for number, vcpus, memory_mib in claims:
        vm, need = ResourceId(f"vm-{number}"), Promise(vcpus=vcpus, memory_mib=memory_mib)
        if no_room(node, vm, need) is None:
            node = with_promise(node, vm, need)
            assert with_promise(node, vm, need) is node, "twice equals once"
        status = node.status
        assert status.used_memory_mib == sum(p.memory_mib for p in status.promises.values())
        assert status.used_vcpus == sum(p.vcpus for p in status.promises.values())
        assert status.used_memory_mib <= status.allocatable_memory_mib
        assert status.used_vcpus <= status.allocatable_vcpus
    for number in range(5):
        node = without_promise(node, ResourceId(f"vm-{number}"))
    assert (node.status.used_vcpus, node.status.used_memory_mib) == (0, 0)


def test_what_a_vm_needs_is_no_less_than_what_it_runs_with() -> None:
    vm = make_vm("web").with_status(runs_with=BIG.hardware)
    assert need_of(vm) == Promise(vcpus=4, memory_mib=4096)
    assert need_of(make_vm("web")) == Promise(vcpus=1, memory_mib=512)


def test_promises_that_hold_room_for_nobody() -> None:
    node, promise = make_node(), Promise(vcpus=1, memory_mib=16)
    here, there, claim, gone = (ResourceId(f"vm-{n}") for n in ("a", "b", "c", "d"))
    for vm in (here, there, claim, gone):
        node = with_promise(node, vm, promise)
    placed = {here: "n1", there: "n2", claim: None}
    assert set(stale_promises(node, placed, frozenset({gone}))) == {there, gone}
    assert set(stale_promises(node, placed, frozenset())) == {there}


def test_a_vm_is_not_in_its_own_way() -> None:
    vm = ResourceId("vm-1")
    node = with_promise(make_node(), vm, Promise(vcpus=1, memory_mib=4096))
    assert place(BIG, [view(node, vm, [])]).node == "n1"
    assert place(BIG, [view(node, ResourceId("vm-2"), [])]).node is None
