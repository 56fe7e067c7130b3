"""Thousands of VMs put into the store directly, as the service that owns them would.

They are off, on one node, and settled: a record and a pointer each, and the node's promise to
keep their room. That is what they would be had they been created one by one.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from bench.fakenode import FakeNode
from trivet.contracts.compute.node import NODE, Node, Promise
from trivet.contracts.compute.vm import VM, Vm, VmSpec, VmStatus, WantedPower
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition, Meta, Phase
from trivet.runtime.assignments import Assignments
from trivet.runtime.clock import new_id
from trivet.runtime.record import Record
from trivet.runtime.store import Store

AT_ONCE = 100
HOST = "n1"
SPEC = VmSpec(power=WantedPower.STOPPED, memory_mib=16)
SETTLED = (
    Condition(type="HardwareCurrent", status="true", reason="Off"),
    Condition(type="PartsReady", status="true", reason="Ready"),
    Condition(type="Progress", status="true", reason="Done"),
    Condition(type="Running", status="false", reason="Absent", message="stopped: it is not there"),
    Condition(type="Scheduled", status="true", reason="Placed", message=f"on {HOST}"),
)


def new_vm(name: str) -> Vm:
    """A VM without parts that shall be off, as it is before anybody has looked at it."""
    meta = Meta(
        id=ResourceId(new_id("vm")),
        name=name,
        project="default",
        created_at=datetime.now(UTC),
        finalizers=("controller",),
    )
    return Vm(meta=meta, spec=SPEC, status=VmStatus())


def settled_vm(name: str) -> Vm:
    """The same, when all is done."""
    vm = new_vm(name).with_meta(finalizers=("controller", "node"))
    return vm.with_status(phase=Phase.READY, observed_generation=1, node=HOST, conditions=SETTLED)


async def store_vm(store: Store, vm: Vm) -> None:
    """Write a VM's record."""
    value = Record[Vm](resource=vm).model_dump_json().encode()
    await store.create(VM.key("default", vm.meta.name), value)


async def store_settled_vms(node: FakeNode, count: int) -> None:
    """Store `stored-00000` and on. The service is away meanwhile: it would take back promises to
    VMs that are not there yet, or promise anew what is about to be."""
    vms = [settled_vm(f"stored-{number:05}") for number in range(count)]
    node.kill("compute")
    async with node.bucket("compute") as store:
        assignments = Assignments(store)
        waiting = iter(vms)

        async def work() -> None:
            for vm in waiting:
                await store_vm(store, vm)
                key = VM.key("default", vm.meta.name)
                await assignments.assign(HOST, "vm", vm.meta.id, key, 1)

        await _promise(store, vms)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    node.start("compute")
    await node.ready()


async def _promise(store: Store, vms: list[Vm]) -> None:
    entry = await store.get(NODE.key(None, HOST))
    assert entry is not None
    record = Record[Node].model_validate_json(entry.value)
    promise = Promise(vcpus=SPEC.vcpus, memory_mib=SPEC.memory_mib)
    node = record.resource.with_status(
        promises={vm.meta.id: promise for vm in vms},
        used_vcpus=promise.vcpus * len(vms),
        used_memory_mib=promise.memory_mib * len(vms),
    )
    value = record.model_copy(update={"resource": node}).model_dump_json().encode()
    await store.update(entry.key, value, entry.revision)
