"""Thousands of resources put into the store directly, as the service that owns them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from bench.fakenode import FakeNode
from trivet.contracts.compute.vm import VM, Vm, VmSpec, VmStatus, WantedPower
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.runtime.clock import new_id
from trivet.runtime.record import Record

AT_ONCE = 100


def stopped_vm(name: str, phase: Phase = Phase.READY) -> Vm:
    """A VM without parts that is off and shall be."""
    meta = Meta(
        id=ResourceId(new_id("vm")), name=name, project="default", created_at=datetime.now(UTC)
    )
    spec = VmSpec(power=WantedPower.STOPPED, memory_mib=16)
    return Vm(meta=meta, spec=spec, status=VmStatus(phase=phase, observed_generation=1))


async def store_stopped_vms(node: FakeNode, count: int) -> None:
    """Store `stored-00000` and on."""
    async with node.bucket("compute") as store:
        waiting = iter(range(count))

        async def work() -> None:
            for number in waiting:
                vm = stopped_vm(f"stored-{number:05}")
                key = VM.key("default", vm.meta.name)
                await store.create(key, Record[Vm](resource=vm).model_dump_json().encode())

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
