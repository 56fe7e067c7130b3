"""A template: never runs, never changes, and clones of it are ordinary VMs."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_clone import ENDPOINT as CLONE
from trivet.contracts.compute.endpoints.vm_clone import CloneRequest
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import IMMUTABLE, INVALID, Code, Refused

WEB = Ref(project="p", name="web")


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


def off(vm: Vm) -> bool:
    return vm.status.power is Power.STOPPED


async def refusal(call: Any) -> tuple[Code, str]:
    with pytest.raises(Refused) as refused:
        await call
    return refused.value.code, str(refused.value.hint)


async def test_a_vm_becomes_one_once_it_is_off_and_is_cloned(world: Any) -> None:
    await world.create()
    await world.until(ready)
    code, hint = await refusal(world.edit(template=True))
    assert (code, hint) == (INVALID, "stop it first")
    code, hint = await refusal(world.edit(template=True, power="stopped"))
    assert (code, hint) == (INVALID, "stop it first: trivet vm stop web")
    await world.edit(power="stopped")
    await world.until(off)
    await world.edit(template=True)
    code, hint = await refusal(world.harness.call(START, WEB))
    assert (code, "vm clone web NEW" in hint) == (INVALID, True)
    await world.harness.call(CLONE, CloneRequest(project="p", name="web", new="copy"))
    copy = await world.until(ready, "copy")
    assert not copy.spec.template
    assert (await world.vm()).status.power is Power.STOPPED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"power": "running"}, INVALID),
        ({"vcpus": 2}, IMMUTABLE),
        ({"disks": [{"name": "root", "size_gib": 2}, {"name": "more", "size_gib": 1}]}, IMMUTABLE),
        ({"nics": []}, IMMUTABLE),
    ],
)
async def test_a_template_stays_as_it_is(world: Any, change: dict[str, Any], code: Code) -> None:
    await world.create(
        power="stopped", template=True, disks=[{"name": "root", "size_gib": 1}], image=None
    )
    assert (await refusal(world.edit(**change)))[0] is code
    await world.edit(template=False, **change)
