"""What a VM uses, asked through its node."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_stats import ENDPOINT as STATS
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.vm import Power
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import INVALID, Refused

REF = Ref(project="p", name="web")


async def test_a_running_vm_tells_what_it_uses(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: v.status.power is Power.RUNNING and v.status.guest_ready)
    first, second = [await world.harness.call(STATS, REF) for _ in range(2)]
    assert 0 < first.cpu_ns < second.cpu_ns
    assert [d.name for d in first.disks] == ["root"]
    assert [n.mac for n in first.nics] == [vm.status.nics[0].mac]
    assert (first.vcpus, first.memory_kib) == (1, 128 * 1024)
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(lambda v: v.status.power is Power.STOPPED)
    with pytest.raises(Refused, match="vm web is stopped") as refused:
        await world.harness.call(STATS, REF)
    assert refused.value.code is INVALID
