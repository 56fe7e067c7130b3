"""The law for hypervisor drivers, as tests: subclass `HypervisorSuite` and provide `bench`.

A bench is an opened driver with guests that can be booted, and what only a test does to it: take
the hypervisor away while guests run, and let somebody else define a domain. The guest must say
READY on its serial console and obey the power button.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import pytest

from trivet.contracts.compute.balloon import Balloon
from trivet.contracts.compute.cpu_control import CpuControl
from trivet.contracts.compute.hot_plug import MEMORY_STEP_MIB, HotPlug
from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainEvent,
    DomainNic,
    DomainSpec,
    DomainState,
    DomainTuning,
    Hypervisor,
)
from trivet.contracts.compute.stats import Statistics
from trivet.contracts.compute.vm import Power
from trivet.contracts.errors import (
    CONFLICT,
    IN_USE,
    INVALID,
    NOT_FOUND,
    NOT_SUPPORTED,
    Refused,
    Retry,
)
from trivet.contracts.model import ResourceId

NOBODY = ResourceId("vm-00000000000000ff")
LOOK_S = 0.05


class HypervisorBench(Protocol):
    """A driver on the bench. `patience_s` bounds every wait for a guest."""

    patience_s: float

    @property
    def driver(self) -> Hypervisor:
        """The driver, opened."""
        ...

    def spec(self, generation: int = 1) -> DomainSpec:
        """A domain that can boot; the same id every time."""
        ...

    def more(self) -> tuple[DomainDisk, DomainNic]:
        """A disk and a card that can be plugged into it."""
        ...

    async def guest_sees(self, id_: ResourceId) -> tuple[set[str], set[str]]:
        """What a running guest finds in itself: disks' serials, cards' MACs."""
        ...

    async def guest_counts(self, id_: ResourceId) -> tuple[int, int]:
        """How many processors and how much memory (MiB) a running guest finds in itself."""
        ...

    async def guest_disk_bytes(self, id_: ResourceId, disk: DomainDisk) -> int:
        """The size that a running guest finds its disk to have; waits until it has found it."""
        ...

    async def serve_larger(self, disk: DomainDisk, size_bytes: int) -> None:
        """The server of a disk of `more` goes, and comes again with that size."""
        ...

    async def lose(self) -> None:
        """The hypervisor goes away without warning; guests run on."""
        ...

    async def restore(self) -> None:
        """It is there again."""
        ...

    async def add_foreign(self) -> None:
        """Somebody else defines a domain on the same hypervisor."""
        ...


async def see(
    bench: HypervisorBench, id_: ResourceId, wanted: Callable[[DomainState], bool]
) -> DomainState:
    """The domain's state as soon as it is as wanted; fails with the last one seen."""
    state: DomainState | None = None
    try:
        async with asyncio.timeout(bench.patience_s):
            while True:
                found = {state.id: state for state in await bench.driver.domains()}
                state = found.get(id_)
                if state is not None and wanted(state):
                    return state
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        log = await bench.driver.console_log(id_, 2000)
        raise AssertionError(f"not as wanted: {state!r}; its console: {log!r}") from None


async def hear(bench: HypervisorBench, heard: list[DomainEvent], power: Power, reason: str) -> None:
    """Wait for an event."""
    async with asyncio.timeout(bench.patience_s):
        while True:
            if any(event.power is power and event.reason == reason for event in heard):
                return
            await asyncio.sleep(LOOK_S)


async def reach(bench: HypervisorBench, there: bool) -> None:
    """Wait until the hypervisor answers, or until it is known to be away."""
    async with asyncio.timeout(bench.patience_s):
        while True:
            if await _is_away(bench.driver) is not there:
                return
            await asyncio.sleep(LOOK_S)


async def boot(bench: HypervisorBench, spec: DomainSpec) -> DomainState:
    """Define and start a guest, and wait until it is ready."""
    await bench.driver.define(spec)
    await bench.driver.act(spec.id, Act.START)
    return await see(bench, spec.id, lambda state: state.ready)


class HypervisorSuite:
    """What must hold of every hypervisor driver."""

    async def test_a_node_has_processors_and_memory(self, bench: HypervisorBench) -> None:
        """The inventory is not empty, and its cells hold all processors."""
        found = await bench.driver.inventory()
        assert found.cpus > 0
        assert found.memory_mib > 0
        assert found.hypervisor_version
        assert found.accel_reason
        assert sum(len(cell.cpus) for cell in found.cells) == found.cpus

    async def test_what_is_defined_is_listed_with_its_record(self, bench: HypervisorBench) -> None:
        """Generation and epoch come back; defining alike changes nothing."""
        spec = bench.spec(generation=3)
        await bench.driver.define(spec)
        await bench.driver.define(spec)
        (state,) = await bench.driver.domains()
        assert (state.id, state.name, state.generation) == (spec.id, spec.name, 3)
        assert (state.epoch, state.power) == (spec.epoch, Power.STOPPED)
        assert (state.vcpus, state.memory_mib) == (spec.vcpus, spec.memory_mib)

    async def test_some_are_looked_at_without_the_others(self, bench: HypervisorBench) -> None:
        """Those of the ids that are asked for, as far as there are any."""
        spec = bench.spec()
        await bench.driver.define(spec)
        (state,) = await bench.driver.domains()
        assert await bench.driver.domains({spec.id}) == (state,)
        assert await bench.driver.domains({ResourceId("vm-0123456789abcdef")}) == ()
        assert await bench.driver.domains(frozenset()) == ()

    async def test_a_stopped_domain_is_replaced(self, bench: HypervisorBench) -> None:
        """The last definition counts."""
        await bench.driver.define(bench.spec(generation=1))
        await bench.driver.define(bench.spec(generation=2))
        (state,) = await bench.driver.domains()
        assert state.generation == 2

    async def test_foreign_domains_are_not_seen(self, bench: HypervisorBench) -> None:
        """What the driver did not define is not listed."""
        await bench.add_foreign()
        assert await bench.driver.domains() == ()

    async def test_nobody_can_be_told_nothing(self, bench: HypervisorBench) -> None:
        """Every act on an unknown domain is refused; forgetting it is fine."""
        for act in Act:
            with pytest.raises(Refused) as refused:
                await bench.driver.act(NOBODY, act)
            assert refused.value.code is NOT_FOUND
        with pytest.raises(Refused):
            await bench.driver.console_log(NOBODY, 100)
        with pytest.raises(Refused):
            await bench.driver.console_path(NOBODY)
        await bench.driver.undefine(NOBODY)

    async def test_a_stopped_domain_stays_so(self, bench: HypervisorBench) -> None:
        """Ending it again is fine; what needs a running guest is refused."""
        spec = bench.spec()
        await bench.driver.define(spec)
        await bench.driver.act(spec.id, Act.SHUTDOWN)
        await bench.driver.act(spec.id, Act.DESTROY)
        for act in (Act.RESET, Act.SUSPEND, Act.RESUME):
            with pytest.raises(Refused) as refused:
                await bench.driver.act(spec.id, act)
            assert refused.value.code is CONFLICT
        with pytest.raises(Refused):
            await bench.driver.console_path(spec.id)
        assert await bench.driver.console_log(spec.id, 100) == b""

    async def test_a_guest_boots_pauses_and_ends(self, bench: HypervisorBench) -> None:
        """A whole life, with its events, each act done twice."""
        heard: list[DomainEvent] = []
        bench.driver.listen(heard.append)
        spec = bench.spec(generation=1)
        state = await boot(bench, spec)
        assert (state.power, state.reason) == (Power.RUNNING, "booted")
        assert b"READY" in await bench.driver.console_log(spec.id, 4000)
        assert len(await bench.driver.console_log(spec.id, 3)) == 3
        assert await bench.driver.console_path(spec.id)
        await hear(bench, heard, Power.RUNNING, "booted")

        await bench.driver.act(spec.id, Act.START)
        for _ in range(2):
            await bench.driver.act(spec.id, Act.SUSPEND)
        await see(bench, spec.id, lambda s: (s.power, s.reason) == (Power.PAUSED, "user"))
        await hear(bench, heard, Power.PAUSED, "user")
        for _ in range(2):
            await bench.driver.act(spec.id, Act.RESUME)
        await see(bench, spec.id, lambda s: s.power is Power.RUNNING and s.ready)

        await bench.driver.act(spec.id, Act.SHUTDOWN)
        ended = await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
        assert (ended.reason, ended.ready) == ("shutdown", False)
        await hear(bench, heard, Power.STOPPED, "shutdown")
        await bench.driver.undefine(spec.id)
        assert await bench.driver.domains() == ()

    async def test_a_running_domain_keeps_what_it_runs(self, bench: HypervisorBench) -> None:
        """A new definition is for the next start; no forgetting meanwhile."""
        spec = bench.spec(generation=1)
        await boot(bench, spec)
        await bench.driver.define(bench.spec(generation=2))
        assert (await see(bench, spec.id, lambda s: s.ready)).generation == 1
        with pytest.raises(Refused) as refused:
            await bench.driver.undefine(spec.id)
        assert refused.value.code is IN_USE
        await bench.driver.act(spec.id, Act.DESTROY)
        ended = await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
        assert (ended.reason, ended.generation) == ("destroyed", 2)
        await bench.driver.undefine(spec.id)

    async def test_a_reset_guest_boots_again(self, bench: HypervisorBench) -> None:
        """Ready is said anew, and the console goes on."""
        spec = bench.spec()
        await boot(bench, spec)
        await bench.driver.act(spec.id, Act.RESET)
        await see(bench, spec.id, lambda s: not s.ready)
        await see(bench, spec.id, lambda s: s.ready)
        assert (await bench.driver.console_log(spec.id, 100_000)).count(b"READY") == 2
        await bench.driver.act(spec.id, Act.DESTROY)

    async def test_a_hypervisor_that_went_away_is_found_again(self, bench: HypervisorBench) -> None:
        """Retry while it is away; guests, acts and events after."""
        spec = bench.spec()
        await boot(bench, spec)
        await bench.lose()
        await reach(bench, there=False)
        with pytest.raises(Retry):
            await bench.driver.act(spec.id, Act.DESTROY)
        heard: list[DomainEvent] = []
        bench.driver.listen(heard.append)
        await bench.restore()
        await reach(bench, there=True)
        state = await see(bench, spec.id, lambda s: s.power is Power.RUNNING)
        assert state.ready
        assert state.generation == spec.generation
        await hear(bench, heard, Power.RUNNING, state.reason)
        await bench.driver.act(spec.id, Act.SHUTDOWN)
        await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
        await hear(bench, heard, Power.STOPPED, "shutdown")

    async def test_disks_and_cards_come_and_go(self, bench: HypervisorBench) -> None:
        """Each act twice; the guest itself is asked, and what it starts with stays as defined."""
        driver, spec, (disk, nic) = bench.driver, bench.spec(), bench.more()
        if not isinstance(driver, HotPlug):
            pytest.skip("this driver does not change running guests")
        with pytest.raises(Refused) as refused:
            await driver.plug(NOBODY, disk)
        assert refused.value.code is NOT_FOUND
        await driver.define(spec)
        for plugging in (driver.plug(spec.id, nic), driver.unplug(spec.id, "root")):
            with pytest.raises(Refused) as refused:
                await plugging
            assert refused.value.code is CONFLICT
        heard: list[DomainEvent] = []
        driver.listen(heard.append)
        state = await boot(bench, spec)
        assert (state.disks, state.nics) == (tuple(d.name for d in spec.disks), ())
        for _ in range(2):
            await driver.plug(spec.id, disk)
            await driver.plug(spec.id, nic)
        state = await see(bench, spec.id, lambda s: len(s.disks) == len(spec.disks) + 1)
        assert (set(state.disks), state.nics) == (
            {disk.name, *(d.name for d in spec.disks)},
            (nic.mac,),
        )
        await _until_guest_sees(bench, spec, {disk.serial}, {nic.mac})
        heard.clear()
        for _ in range(2):
            await driver.unplug(spec.id, disk.name)
            await driver.unplug(spec.id, nic.mac)
        state = await see(bench, spec.id, lambda s: not s.nics and disk.name not in s.disks)
        assert state.disks == tuple(d.name for d in spec.disks)
        await _until_guest_sees(bench, spec, set(), set())
        assert heard, "a device that goes is told"
        await driver.unplug(spec.id, disk.name)
        await driver.act(spec.id, Act.DESTROY)
        await see(bench, spec.id, lambda s: s.power is Power.STOPPED and not s.disks)

    async def test_processors_and_memory_come(self, bench: HypervisorBench) -> None:
        """Within what the domain was made for; the guest uses them, and keeps them."""
        driver = bench.driver
        if not isinstance(driver, HotPlug):
            pytest.skip("this driver does not change running guests")
        spec = bench.spec()
        # A Linux guest that can be given memory above 4 GiB sets 64 MiB aside for old devices.
        spec = spec.model_copy(update={"memory_mib": spec.memory_mib + MEMORY_STEP_MIB})
        has_mib = spec.memory_mib
        room = {"max_vcpus": spec.vcpus + 1, "max_memory_mib": has_mib + MEMORY_STEP_MIB}
        spec = spec.model_copy(update=room)
        state = await boot(bench, spec)
        assert (state.vcpus, state.memory_mib) == (spec.vcpus, has_mib)
        for vcpus, memory_mib in (
            (spec.vcpus + 2, has_mib),
            (spec.vcpus, has_mib + 2 * MEMORY_STEP_MIB),
            (spec.vcpus, has_mib + 1),
        ):
            with pytest.raises(Refused) as refused:
                await driver.scale(spec.id, vcpus, memory_mib)
            assert refused.value.code is NOT_SUPPORTED
        before_mib = (await bench.guest_counts(spec.id))[1]
        for _ in range(2):
            await driver.scale(spec.id, spec.vcpus + 1, has_mib + MEMORY_STEP_MIB)
        await driver.scale(spec.id, spec.vcpus, has_mib)
        state = await see(bench, spec.id, lambda s: s.vcpus == spec.vcpus + 1)
        assert state.memory_mib == has_mib + MEMORY_STEP_MIB
        async with asyncio.timeout(bench.patience_s):
            while True:
                vcpus, memory_mib = await bench.guest_counts(spec.id)
                if vcpus == spec.vcpus + 1 and memory_mib >= before_mib + MEMORY_STEP_MIB * 0.9:
                    break
                await asyncio.sleep(LOOK_S)
        await driver.act(spec.id, Act.DESTROY)

    async def test_a_disk_grows(self, bench: HypervisorBench) -> None:
        """The guest sees it once it is served so, and never before."""
        driver, spec, (disk, _) = bench.driver, bench.spec(), bench.more()
        if not isinstance(driver, HotPlug):
            pytest.skip("this driver does not change running guests")
        await boot(bench, spec)
        await driver.plug(spec.id, disk)
        before = await bench.guest_disk_bytes(spec.id, disk)
        with pytest.raises(Retry):
            await driver.resize(spec.id, disk.name, 2 * before)
        assert await bench.guest_disk_bytes(spec.id, disk) == before
        await bench.serve_larger(disk, 2 * before)
        for _ in range(2):
            await driver.resize(spec.id, disk.name, 2 * before)
        assert await bench.guest_disk_bytes(spec.id, disk) == 2 * before
        assert (await see(bench, spec.id, lambda s: s.ready)).power is Power.RUNNING
        with pytest.raises(Refused) as refused:
            await driver.resize(spec.id, "nope", 2 * before)
        assert refused.value.code is CONFLICT
        await driver.act(spec.id, Act.DESTROY)

    async def test_a_guest_is_tuned_as_it_runs(self, bench: HypervisorBench) -> None:
        """What is told back is what was asked, over whatever was before."""
        driver, spec = bench.driver, bench.spec()
        if not isinstance(driver, CpuControl):
            pytest.skip("this driver does not tune running guests")
        with pytest.raises(Refused) as refused:
            await driver.tune(NOBODY, DomainTuning())
        assert refused.value.code is NOT_FOUND
        started = DomainTuning(pin=(0,))
        await driver.define(spec.model_copy(update={"cpu": started}))
        with pytest.raises(Refused) as refused:
            await driver.tune(spec.id, started)
        assert refused.value.code is CONFLICT
        assert (await boot(bench, spec.model_copy(update={"cpu": started}))).cpu == started
        inventory = await driver.inventory()
        others = tuple(range(1, inventory.cpus))
        tunings = [DomainTuning(allowed=others), DomainTuning(pin=(0,), allowed=others)]
        weighed = DomainTuning(shares=512, limit_pct=20)
        if inventory.cpu_control:
            tunings += [weighed, DomainTuning(shares=4096, pin=(0,)), DomainTuning(shares=1024)]
        else:
            with pytest.raises(Refused) as refused:
                await driver.tune(spec.id, weighed)
            assert refused.value.code is NOT_SUPPORTED
            tunings.append(DomainTuning())
        for tuning in tunings:
            for _ in range(2):
                await driver.tune(spec.id, tuning)
            (state,) = await driver.domains()
            assert state.cpu == tuning
        await driver.act(spec.id, Act.DESTROY)
        (state,) = await driver.domains()
        assert state.cpu is None

    async def test_a_guest_gives_memory_and_gets_it_again(self, bench: HypervisorBench) -> None:
        """It has less, and all of it again; never more than it was made with."""
        driver, spec = bench.driver, bench.spec()
        if not (isinstance(driver, Balloon) and isinstance(driver, Statistics)):
            pytest.skip("this driver moves no memory")
        host = await driver.host_memory()
        assert 0 < host.available_mib <= host.total_mib
        with pytest.raises(Refused) as refused:
            await driver.set_target(NOBODY, 64)
        assert refused.value.code is NOT_FOUND
        await driver.define(spec)
        with pytest.raises(Refused) as refused:
            await driver.set_target(spec.id, 64)
        assert refused.value.code is CONFLICT
        state = await boot(bench, spec)
        with pytest.raises(Refused) as refused:
            await driver.set_target(spec.id, spec.memory_mib + 1)
        assert refused.value.code is INVALID
        for target_mib in (spec.memory_mib - 16, spec.memory_mib):
            for _ in range(2):
                await driver.set_target(spec.id, target_mib)
            async with asyncio.timeout(bench.patience_s):
                while True:
                    if (await driver.stats(spec.id)).memory_kib == target_mib * 1024:
                        break
                    await asyncio.sleep(LOOK_S)
        (again,) = await driver.domains()
        assert again.memory_mib == state.memory_mib == spec.memory_mib
        await driver.act(spec.id, Act.DESTROY)

    async def test_what_a_guest_uses_is_told(self, bench: HypervisorBench) -> None:
        """Time grows, disks are named; what does not run uses nothing."""
        driver, spec = bench.driver, bench.spec()
        if not isinstance(driver, Statistics):
            pytest.skip("this driver does not tell what guests use")
        with pytest.raises(Refused) as refused:
            await driver.stats(NOBODY)
        assert refused.value.code is NOT_FOUND
        await driver.define(spec)
        with pytest.raises(Refused) as refused:
            await driver.stats(spec.id)
        assert refused.value.code is CONFLICT
        await boot(bench, spec)
        first, second = await driver.stats(spec.id), await driver.stats(spec.id)
        assert 0 < first.cpu_ns <= second.cpu_ns
        assert (first.vcpus, first.memory_kib) == (spec.vcpus, spec.memory_mib * 1024)
        assert [disk.name for disk in first.disks] == [disk.name for disk in spec.disks]
        assert first.disks[0].read_bytes > 0
        await driver.act(spec.id, Act.DESTROY)


async def _until_guest_sees(
    bench: HypervisorBench, spec: DomainSpec, serials: set[str], macs: set[str]
) -> None:
    wanted = ({d.serial for d in spec.disks} | serials, {n.mac for n in spec.nics} | macs)
    async with asyncio.timeout(bench.patience_s):
        while True:
            if await bench.guest_sees(spec.id) == wanted:
                return
            await asyncio.sleep(LOOK_S)


async def _is_away(driver: Hypervisor) -> bool:
    try:
        await driver.domains()
    except Retry:
        return True
    return False
