"""A VM's seed is there before it starts, as asked for at that start, and goes with the VM."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import Power
from trivet.contracts.endpoint import DeleteRequest, EditRequest, Ref

WEB = Ref(project="p", name="web")
SECRET = "#cloud-config\npassword: hunter2\n"


async def restarted(world: Any) -> Any:
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(lambda v: v.status.power is Power.STOPPED)
    await world.harness.call(START, WEB)
    return await world.until(lambda v: v.status.guest_ready)


async def test_what_is_asked_for_reaches_the_guest(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await world.create(user_data=SECRET)
    vm = await world.until(lambda v: v.status.guest_ready)
    host = world.host()
    seed = host.seeds[vm.meta.id]
    assert seed.user_data == SECRET
    assert json.loads(seed.meta_data)["local-hostname"] == "web"
    (card,) = json.loads(seed.network_config)["ethernets"].values()
    assert card["match"] == {"macaddress": vm.status.nics[0].mac}
    assert card["addresses"] == [f"{vm.status.addresses[0]}/24"]
    assert host.domains[vm.meta.id].running.seed == seed.digest

    patch = EditRequest(project="p", name="web", spec={"user_data": "#!/bin/sh\n"})
    await world.harness.call(VMS.edit, patch)
    assert host.seeds[vm.meta.id] == seed, "a running guest keeps the one that it has"
    await restarted(world)
    assert host.seeds[vm.meta.id].user_data == "#!/bin/sh\n"

    await world.harness.call(
        VMS.edit, EditRequest(project="p", name="web", spec={"user_data": None})
    )
    await restarted(world)
    assert host.seeds == {}
    assert host.domains[vm.meta.id].running.seed is None
    assert "hunter2" not in caplog.text


async def test_it_goes_with_its_vm(world: Any) -> None:
    await world.create(user_data=SECRET)
    await world.until(lambda v: v.status.guest_ready)
    assert world.host().seeds
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    assert world.host().seeds == {}


async def test_who_asks_for_none_gets_none(world: Any) -> None:
    vm = await world.create()
    await world.until(lambda v: v.status.guest_ready)
    assert world.host().seeds == {}
    assert world.host().domains[vm.meta.id].running.seed is None
