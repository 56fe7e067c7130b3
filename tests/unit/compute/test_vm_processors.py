"""Shares, reservations, limits and cores of a VM's own: what fits, what is claimed, what holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from trivet.compute.domain.capacity import (
    asked_by,
    covers,
    kept,
    no_room,
    summed,
    with_promise,
    without_promise,
)
from trivet.compute.domain.cpu_tuning import tuning_of, weights
from trivet.compute.domain.placement import place, view
from trivet.contracts.compute.hypervisor import DomainTuning
from trivet.contracts.compute.node import Accel, Inventory, Node, NodeSpec, NodeStatus, Promise
from trivet.contracts.compute.vm import CpuTuning, Vm, VmSpec, VmStatus
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PAIRS = ((0, 4), (1, 5), (2, 6), (3, 7))


def make_node(
    cpus: int = 4, cores: tuple[tuple[int, ...], ...] = (), control: bool | None = True
) -> Node:
    inventory = Inventory(
        hypervisor="x",
        hypervisor_version="1",
        accel=Accel.KVM,
        accel_reason="",
        cpus=cpus,
        cores=cores,
        memory_mib=65536,
        cpu_control=control,
    )
    status = NodeStatus(phase=Phase.READY, inventory=inventory, allocatable_memory_mib=65536)
    meta = Meta(id=ResourceId("node-1"), name="n1", created_at=NOW)
    return summed(Node(meta=meta, spec=NodeSpec(overcommit_cpu=2), status=status))


def make_vm(name: str, vcpus: int = 1, **cpu: object) -> Vm:
    spec = VmSpec(vcpus=vcpus, memory_mib=64, cpu=CpuTuning.model_validate(cpu))
    meta = Meta(id=ResourceId(f"vm-{name}"), name=name, project="p", created_at=NOW)
    return Vm(meta=meta, spec=spec, status=VmStatus())


def promised(node: Node, *vms: Vm) -> Node:
    for vm in vms:
        assert no_room(node, vm.meta.id, asked_by(vm.spec)) is None
        node = with_promise(node, vm.meta.id, asked_by(vm.spec))
    return node


@pytest.mark.parametrize(
    ("there", "asked", "why"),
    [
        ((), {"vcpus": 9}, "needs 9 vcpus, 8 of 8 free"),
        ((("a", 6, {}),), {"vcpus": 3}, "needs 3 vcpus, 2 of 8 free"),
        ((("a", 4, {"reservation_pct": 90}),), {"reservation_pct": 50}, "needs 50 % of a"),
        ((("a", 2, {"exclusive": True}),), {"vcpus": 5}, "needs 5 vcpus, 4 of 4 free"),
        ((("a", 2, {"exclusive": True}),), {"pin": (0,)}, "is another VM's own"),
        ((), {"pin": (4,)}, "has 4 processors, cpu.pin names 4"),
        ((), {"vcpus": 4, "exclusive": True}, "would have no processor left to share"),
        ((("a", 5, {}),), {"vcpus": 2, "exclusive": True}, "has promised 5, 0 of 4 free"),
        (
            (("a", 1, {"pin": (0,)}), ("b", 1, {"pin": (2,)})),
            {"vcpus": 3, "exclusive": True},
            "has no 3 processors free",
        ),
    ],
)
def test_what_does_not_fit(
    there: tuple[tuple[str, int, dict[str, object]], ...], asked: dict[str, object], why: str
) -> None:
    node = promised(make_node(), *(make_vm(name, vcpus, **cpu) for name, vcpus, cpu in there))
    vcpus = asked.pop("vcpus", 1)
    assert isinstance(vcpus, int)
    vm = make_vm("new", vcpus, **asked)
    said = no_room(node, vm.meta.id, asked_by(vm.spec))
    assert said is not None
    assert why in said
    decision = place(vm.spec, [view(node, vm.meta.id, [])])
    assert why in decision.explain(), "placement and claim agree"


@pytest.mark.parametrize(
    ("control", "said"), [(False, "no cgroups"), (None, "does not tell"), (True, None)]
)
@pytest.mark.parametrize("field", ["shares", "reservation_pct", "limit_pct"])
def test_what_would_have_no_effect_is_refused(
    control: bool | None, said: str | None, field: str
) -> None:
    vm, node = make_vm("web", **{field: 50}), make_node(control=control)
    found = place(vm.spec, [view(node, vm.meta.id, [])])
    assert (found.node is None) == (said is not None)
    assert said is None or said in found.explain()
    assert (no_room(node, vm.meta.id, asked_by(vm.spec)) is None) == (said is None)
    plain = make_vm("plain", pin=(1,))
    assert place(plain.spec, [view(node, plain.meta.id, [])]).node == "n1"


def test_cores_of_its_own_are_whole_and_others_stay_off_them() -> None:
    loud = make_vm("loud", 3, exclusive=True)
    plain, pinned = make_vm("plain"), make_vm("pinned", pin=(1,))
    node = promised(make_node(8, PAIRS), plain, pinned, loud)
    assert node.status.promises[loud.meta.id].cpus == (0, 2, 4, 6), "core (1, 5) is named by pinned"
    assert node.status.allocatable_cpu_pct == 400
    assert tuning_of(loud, node) == DomainTuning(shares=3072, pin=(0, 2, 4), allowed=(1, 3, 5, 7))
    assert tuning_of(plain, node) == DomainTuning(shares=1024, allowed=(1, 3, 5, 7))
    assert tuning_of(pinned, node).pin == (1,)
    assert promised(node, plain, loud) == node, "twice equals once"
    less = make_vm("loud", 2, exclusive=True)
    again = promised(node, less)
    assert again.status.promises[loud.meta.id].cpus == (0, 4), "it keeps what it has"
    gone = without_promise(node, loud.meta.id)
    assert tuning_of(plain, gone).allowed == ()
    assert gone.status.allocatable_cpu_pct == 800


def test_a_promise_of_before_is_as_good_as_it_was() -> None:
    old = Promise.model_validate({"vcpus": 2, "memory_mib": 64})
    assert kept(old, asked_by(make_vm("web", 2).spec))
    assert not covers(old, asked_by(make_vm("web", 2, exclusive=True).spec))
    assert not covers(old, asked_by(make_vm("web", 2, limit_pct=20).spec))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.one_of(st.none(), st.integers(2, 5000)),
            st.one_of(st.none(), st.integers(1, 100)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_reserved_is_got_when_all_want_all(
    asked: list[tuple[int, int | None, int | None]],
) -> None:
    node = make_node()
    for number, (vcpus, shares, reserved) in enumerate(asked):
        vm = make_vm(str(number), vcpus, shares=shares, reservation_pct=reserved)
        if no_room(node, vm.meta.id, asked_by(vm.spec)) is None:
            node = promised(node, vm)
    found, promises = weights(node), node.status.promises
    assert found.keys() == promises.keys()
    whole = sum(found.values())
    for id_, promise in promises.items():
        gets_pct = 400 * found[id_] / whole
        assert gets_pct >= promise.cpu_pct * 0.98 - 0.5, (found, promises)
    if not any(p.cpu_pct for p in promises.values()):
        assert all(found[i] == (p.shares or 1024 * p.vcpus) for i, p in promises.items())


def test_what_can_not_be_asked() -> None:
    for wrong in (
        {"reservation_pct": 50, "limit_pct": 20},
        {"exclusive": True, "pin": (1,)},
        {"pin": (-1,)},
        {"reservation_pct": 101},
    ):
        with pytest.raises(ValidationError):
            CpuTuning.model_validate(wrong)
