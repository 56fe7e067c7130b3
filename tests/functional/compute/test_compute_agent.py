"""What guests say is in their VMs' status; their clocks are set after a pause; freezes end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.node_vm_freeze import ENDPOINT as FREEZE
from trivet.contracts.compute.endpoints.node_vm_freeze import FreezeRequest
from trivet.contracts.compute.endpoints.node_vm_thaw import ENDPOINT as THAW
from trivet.contracts.compute.endpoints.node_vm_thaw import ThawRequest
from trivet.contracts.compute.endpoints.vm_resume import ENDPOINT as RESUME
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.endpoints.vm_suspend import ENDPOINT as SUSPEND
from trivet.contracts.compute.guest_agent import AgentStatus, GuestReport
from trivet.contracts.compute.vm import Power
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import Refused

WEB = Ref(project="p", name="web")
pytestmark = pytest.mark.parametrize("hypervisor", [{"agent": True}])


async def test_what_the_guest_says_is_shown_while_it_runs(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: v.status.agent.connected)
    said = AgentStatus(connected=True, hostname="pretended", addresses=("192.0.2.9",))
    assert vm.status.agent == said
    agent = world.host().domains[vm.meta.id].agent
    agent.said = GuestReport(hostname="renamed")
    vm = await world.until(lambda v: v.status.agent.hostname == "renamed")
    assert vm.status.agent.addresses == ()
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    vm = await world.until(lambda v: not v.status.agent.connected)
    assert vm.status.agent == AgentStatus()


async def test_the_clock_is_set_after_a_pause(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: v.status.agent.connected)
    agent = world.host().domains[vm.meta.id].agent
    await world.harness.call(SUSPEND, WEB)
    await world.until(lambda v: v.status.power is Power.PAUSED)
    assert agent.clock_sets == 0
    await world.harness.call(RESUME, WEB)
    await world.eventually(lambda: agent.clock_sets == 1)


async def test_a_freeze_ends_by_a_thaw_or_by_its_bound(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: v.status.agent.connected)
    agent = world.host().domains[vm.meta.id].agent
    thaw = ThawRequest(id=vm.meta.id)
    freeze = FreezeRequest(id=vm.meta.id, bound_s=30)
    assert (await world.harness.call(FREEZE, freeze, node="n1")).filesystems == 1
    assert agent.frozen
    assert (await world.harness.call(THAW, thaw, node="n1")).filesystems == 1
    assert not agent.frozen
    short = FreezeRequest(id=vm.meta.id, bound_s=0.01)
    await world.harness.call(FREEZE, short, node="n1")
    await world.crash()  # whoever froze it is gone
    await world.eventually(lambda: not agent.frozen)
    await world.start()
    await world.until(lambda v: v.status.agent.connected)
    assert (await world.harness.call(THAW, thaw, node="n1")).filesystems == 0
    await asyncio.sleep(0)
    with pytest.raises(Refused):
        await world.harness.call(THAW, ThawRequest(id="vm-0000000000000000"), node="n1")
