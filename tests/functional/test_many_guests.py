"""Guests come and go, many at once, on the real bus and store: nothing of them stays behind.

The drivers are fakes, the rest is real: services, permissions, fsynced writes, events. A run
has a short sample; `--soak` has 200 guests, 20 at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from trivet.compute.bootstrap import bootstrap as compute
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import VmSpec
from trivet.contracts.endpoint import CreateRequest, DeleteRequest, GetRequest, ListRequest, NewMeta
from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.network import NetworkSpec
from trivet.contracts.resource import Phase
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.pool import PoolMember, PoolSpec
from trivet.network.bootstrap import bootstrap as network
from trivet.security.bootstrap import bootstrap as security
from trivet.storage.bootstrap import bootstrap as storage
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.hypervisor_host import fake_host
from trivet.testing.lab.inventory import difference
from trivet.testing.nats import NatsServer
from trivet.testing.nats_harness import NatsHarness

PROJECT = "default"
GUEST_S = 60.0
CLEAN_S = 30.0
SETTINGS = {
    "compute": {"hypervisor": "fake"},
    "storage": {"engine": "fake-engine", "inspector": "fake-inspector"},
    "network": {"switch": "fake-switch", "gateway": "fake-gateway", "dhcp": "fake-dhcp"},
}
SPEC = VmSpec.model_validate(
    {"memory_mib": 64, "disks": [{"size_gib": 1}], "nics": [{"network": "lan"}]}
)


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[NatsHarness]:
    server = NatsServer(tmp_path / "nats")
    await server.start()
    configs = {"fake": {"memory_mib": 1 << 20, "cpus": 256}}
    token = tmp_path / "first-token"
    people = {"security": {"firewall": "fake-firewall", "bootstrap_token_file": token}}
    harness = NatsHarness(server, tmp_path, plugins=(fakes,), configs=configs, **SETTINGS, **people)
    try:
        async with harness:
            for name, bootstrap in (
                ("security", security),
                ("storage", storage),
                ("network", network),
                ("compute", compute),
            ):
                await harness.start(name, bootstrap)
            await prepare(harness)
            yield harness
    finally:
        await server.stop()


async def prepare(cloud: NatsHarness) -> None:
    pool = PoolSpec(members=(PoolMember(node="n1", file_gib=1000),))
    request = CreateRequest[PoolSpec](meta=NewMeta(name="default"), spec=pool)
    await cloud.call(POOLS.create, request)
    lan = NetworkSpec(subnets=("10.9.0.0/22",))
    meta = NewMeta(name="lan", project=PROJECT)
    await cloud.call(NETWORKS.create, CreateRequest[NetworkSpec](meta=meta, spec=lan))
    await until(lambda: has_default_group(cloud))
    for crud, asked in (
        (POOLS, GetRequest(name="default", settle_s=20)),
        (NETWORKS, GetRequest(project=PROJECT, name="lan", settle_s=20)),
    ):
        found = await cloud.call(crud.get, asked)
        assert found.status.phase is Phase.READY, found.status


async def come_and_go(cloud: NatsHarness, name: str) -> None:
    """One guest from its create to its end."""
    meta = NewMeta(name=name, project=PROJECT)
    await cloud.call(VMS.create, CreateRequest[VmSpec](meta=meta, spec=SPEC))
    async with asyncio.timeout(GUEST_S):
        vm = await cloud.call(VMS.get, GetRequest(project=PROJECT, name=name, settle_s=GUEST_S))
        assert vm.status.phase is Phase.READY, vm.status.conditions
        await cloud.call(VMS.delete, DeleteRequest(project=PROJECT, name=name))
        await until(lambda: gone(cloud, name))


async def has_default_group(cloud: NatsHarness) -> bool:
    page = await cloud.call(GROUPS.list, ListRequest(project=PROJECT))
    return bool(page.items)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(CLEAN_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


async def gone(cloud: NatsHarness, name: str) -> bool:
    try:
        await cloud.call(VMS.get, GetRequest(project=PROJECT, name=name))
    except Refused as error:
        if error.code is not NOT_FOUND:
            raise
        return True
    return False


async def cycles(cloud: NatsHarness, number: int, at_once: int, prefix: str) -> None:
    names = iter([f"{prefix}-{n}" for n in range(number)])

    async def one_after_the_other() -> None:
        for name in names:
            await come_and_go(cloud, name)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one_after_the_other())


def domains(cloud: NatsHarness) -> int:
    return len(fake_host(cloud.folder / "state/compute/fake").domains)


@pytest.mark.parametrize(
    ("number", "at_once"), [(20, 5), pytest.param(200, 20, marks=pytest.mark.soak)]
)
async def test_nothing_of_guests_that_went_stays(
    cloud: NatsHarness, number: int, at_once: int, tell_at_the_end: Callable[[str], None]
) -> None:
    await cycles(cloud, at_once, at_once, "warm")
    before = await cloud.inventory()
    began = time.monotonic()
    await cycles(cloud, number, at_once, "guest")
    took = time.monotonic() - began
    tell_at_the_end(
        f"{number} guests came and went, {at_once} at once: {number / took:.1f} a second"
    )
    left: list[str] = []

    async def clean() -> bool:
        left[:] = difference(before, await cloud.inventory(), {"tasks": 2, "descriptors": 2})
        return not left

    try:
        await until(clean)
    except TimeoutError:
        pytest.fail("left over:\n" + "\n".join(left))
    assert domains(cloud) == 0
    for crud in (VOLUMES, PORTS):
        page = await cloud.call(crud.list, ListRequest(project=PROJECT))
        assert page.items == ()
