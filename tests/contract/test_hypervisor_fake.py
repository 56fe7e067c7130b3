"""The pretended hypervisor obeys the law that the real one does; and its faults are faults."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainEvent,
    DomainNic,
    DomainSpec,
)
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import Fatal, Retry
from trivet.contracts.model import ResourceId
from trivet.testing.fakes.hypervisor import FakeHypervisor, FakeHypervisorConfig
from trivet.testing.suites.consoles import ConsoleSuite
from trivet.testing.suites.hypervisor import HypervisorSuite, boot, see


class FakeBench:
    patience_s = 5.0

    def __init__(self, folder: Path, config: FakeHypervisorConfig) -> None:
        self.context = DriverContext(node="n1", state_dir=folder, run_dir=folder)
        self.driver = FakeHypervisor(self.context, config)

    def spec(self, generation: int = 1) -> DomainSpec:
        return domain("vm-0000000000000001", generation)

    def more(self) -> tuple[DomainDisk, DomainNic]:
        self.driver.host.sizes.setdefault("w.e1", 1 << 30)
        disk = DomainDisk(name="data", socket="/run/data.sock", export="w.e1", serial="data")
        return disk, DomainNic(device="tvp9", mac="02:00:00:00:00:09", mtu=1450)

    async def guest_sees(self, id_: ResourceId) -> tuple[set[str], set[str]]:
        running = self.driver.host.domains[id_].running
        assert running is not None
        return {d.serial for d in running.disks}, {n.mac for n in running.nics}

    async def guest_counts(self, id_: ResourceId) -> tuple[int, int]:
        running = self.driver.host.domains[id_].running
        assert running is not None
        return running.vcpus, running.memory_mib

    async def guest_disk_bytes(self, id_: ResourceId, disk: DomainDisk) -> int:
        return self.driver.host.domains[id_].shown.get(disk.name, 1 << 30)

    async def serve_larger(self, disk: DomainDisk, size_bytes: int) -> None:
        self.driver.host.sizes[disk.export] = size_bytes

    async def lose(self) -> None:
        self.driver.host.away = True

    async def restore(self) -> None:
        self.driver.host.come_back()

    async def add_foreign(self) -> None:
        self.driver.host.foreign.add("theirs")


def domain(id_: str, generation: int = 1) -> DomainSpec:
    return DomainSpec(
        id=ResourceId(id_),
        name="web-1",
        project="p1",
        generation=generation,
        epoch=1,
        vcpus=1,
        memory_mib=128,
        disks=(DomainDisk(name="root", socket="/run/root.sock", export="v.e1", serial="root"),),
    )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[FakeBench]:
    made = FakeBench(tmp_path, FakeHypervisorConfig(agent=True))
    await made.driver.open()
    yield made
    await made.driver.close()


class TestFakeHypervisor(HypervisorSuite):
    """The law."""


class TestFakeHypervisorConsoles(ConsoleSuite):
    """The law for consoles."""


async def test_guests_outlive_the_driver(bench: FakeBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    await bench.driver.close()
    again = FakeHypervisor(bench.context, FakeHypervisorConfig())
    await again.open()
    (state,) = await again.domains()
    assert (state.power, state.ready) == (Power.RUNNING, True)
    await again.close()


async def test_what_happens_in_a_guest_is_told(bench: FakeBench) -> None:
    heard: list[DomainEvent] = []
    bench.driver.listen(heard.append)
    spec, host = bench.spec(), bench.driver.host
    await boot(bench, spec)
    host.io_error(spec.id)
    await see(bench, spec.id, lambda s: (s.power, s.reason) == (Power.PAUSED, "io_error"))
    await bench.driver.act(spec.id, Act.RESUME)
    host.crash(spec.id)
    await see(bench, spec.id, lambda s: (s.power, s.reason) == (Power.STOPPED, "crashed"))
    await bench.driver.act(spec.id, Act.START)
    host.power_off(spec.id)
    await see(bench, spec.id, lambda s: s.reason == "shutdown")
    await asyncio.sleep(0)
    assert {event.reason for event in heard} >= {"booted", "io_error", "crashed", "shutdown"}


async def test_one_disk_in_two_guests_is_caught(bench: FakeBench) -> None:
    await boot(bench, bench.spec())
    twin = domain("vm-0000000000000002")
    await bench.driver.define(twin)
    with pytest.raises(Fatal, match="two guests on the same disk"):
        await bench.driver.act(twin.id, Act.START)


async def test_devices_can_be_demanded(tmp_path: Path) -> None:
    made = FakeBench(tmp_path, FakeHypervisorConfig(check_devices=True))
    await made.driver.open()
    spec = made.spec()
    await made.driver.define(spec)
    with pytest.raises(Retry, match=r"/run/root\.sock"):
        await made.driver.act(spec.id, Act.START)
    made.driver.host.sockets.add("/run/root.sock")
    await made.driver.act(spec.id, Act.START)
    await made.driver.act(spec.id, Act.DESTROY)


async def test_a_deaf_guest_does_not_hear_the_button(tmp_path: Path) -> None:
    made = FakeBench(tmp_path, FakeHypervisorConfig(deaf_guests=True))
    await made.driver.open()
    spec = made.spec()
    await boot(made, spec)
    await made.driver.act(spec.id, Act.SHUTDOWN)
    assert made.driver.host.domains[spec.id].clock is not None
    (state,) = await made.driver.domains()
    assert state.power is Power.RUNNING
    await made.driver.act(spec.id, Act.DESTROY)
