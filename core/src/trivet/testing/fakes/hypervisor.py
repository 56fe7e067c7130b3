"""A hypervisor in memory: guests that boot, say READY, obey or ignore the power button, crash.

What runs lives in a `FakeHost`, found by the driver's state folder, so that guests outlive the
driver as they do in reality. It is stricter than the real one: a disk's socket and a card's
device that nobody has declared to exist can be demanded, and one disk in two running guests
is an error that nobody gets away with. Faults are in the configuration, or set on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import ClassVar

from trivet.contracts.compute.balloon import HostMemory
from trivet.contracts.compute.guest_agent import GuestReport
from trivet.contracts.compute.hot_plug import MEMORY_STEP_MIB
from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainEvent,
    DomainNic,
    DomainSpec,
    DomainState,
    DomainTuning,
    Hypervisor,
    Listener,
)
from trivet.contracts.compute.node import Accel, Inventory, NumaCell
from trivet.contracts.compute.seed import Seed
from trivet.contracts.compute.stats import DiskCounters, GuestStats, NicCounters
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import (
    CONFLICT,
    DRIVER_FAILED,
    IN_USE,
    INVALID,
    NOT_FOUND,
    NOT_SUPPORTED,
    UNAVAILABLE,
    Fatal,
    Refused,
    Retry,
)
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import GIB, MIB, Model, ResourceId
from trivet.testing.fakes.guest_agent import FakeAgent
from trivet.testing.fakes.guest_console import FakeLine, FakeScreen
from trivet.testing.fakes.hypervisor_host import FakeDomain, fake_host


class FakeHypervisorConfig(Model):
    """`boot_s` until a guest is ready; `deaf_guests` ignore the power button; `start_fails`
    makes every start a Retry; `agent`: guests have one; `check_devices` demands what a domain uses
    to be declared.
    `unplug_s` until a guest lets go of a device; `keeps_devices`: it never does. `cpu_control`:
    shares and limits have an effect."""

    cpus: int = 8
    memory_mib: int = 16 * GIB // MIB
    agent: bool = False
    boot_s: float = 0.01
    shutdown_s: float = 0.01
    deaf_guests: bool = False
    start_fails: bool = False
    unplug_s: float = 0.01
    keeps_devices: bool = False
    check_devices: bool = False
    firmware: tuple[str, ...] = ("bios", "uefi")
    tpm: bool = True
    cpu_control: bool = True


class FakeHypervisor:
    """Runs pretended guests; see the law in `contracts.compute.hypervisor`."""

    name: ClassVar[str] = "fake"
    Config: ClassVar[type[Model]] = FakeHypervisorConfig

    def __init__(self, context: DriverContext, config: FakeHypervisorConfig) -> None:
        self.host = fake_host(context.state_dir)
        self.config = config
        self._context = context
        self._listeners: list[Listener] = []

    def __repr__(self) -> str:
        return f"<FakeHypervisor {self._context.node} {len(self.host.domains)} domains>"

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable, never chosen by `auto` over a real one."""
        return Probe(usable=True, reason="pretends", score=-1)

    async def open(self) -> None:
        """Begin to hear the host."""
        self.host.drivers.append(self)

    async def close(self) -> None:
        """Stop hearing; guests run on."""
        if self in self.host.drivers:
            self.host.drivers.remove(self)

    async def inventory(self) -> Inventory:
        """The machine that the configuration describes."""
        self._reach()
        cpus, memory_mib = self.config.cpus, self.config.memory_mib
        return Inventory(
            hypervisor="fake",
            hypervisor_version="1.0.0",
            accel=Accel.TCG,
            accel_reason="pretends",
            cpu_model="pretended",
            cpus=cpus,
            memory_mib=memory_mib,
            cells=(NumaCell(id=0, cpus=tuple(range(cpus)), memory_mib=memory_mib),),
            firmware=self.config.firmware,
            tpm=self.config.tpm,
            cpu_control=self.config.cpu_control,
            cpu_control_reason="pretends",
        )

    async def define(self, domain: DomainSpec) -> None:
        """Keep what is to be started next."""
        self._reach()
        if domain.firmware not in self.config.firmware:
            raise Refused(NOT_SUPPORTED, f"no {domain.firmware} firmware here")
        if domain.tpm and not self.config.tpm:
            raise Refused(NOT_SUPPORTED, "no TPM here")
        self._check_tuning(domain.cpu)
        known = self.host.domains.get(domain.id)
        if known is None:
            self.host.domains[domain.id] = FakeDomain(defined=domain)
        elif known.defined == domain:
            return
        else:
            known.defined = domain
        self.host.defines += 1

    async def altered(self) -> tuple[ResourceId, ...]:
        """Those that a test changed behind our back."""
        self._reach()
        return tuple(id_ for id_, domain in self.host.domains.items() if domain.altered)

    async def restore(self, id_: ResourceId) -> None:
        """As it was."""
        self._find(id_).altered = False

    async def undefine(self, id_: ResourceId) -> None:
        """Forget a stopped domain."""
        self._reach()
        known = self.host.domains.get(id_)
        if known is not None and known.running is not None:
            raise Refused(IN_USE, f"{id_} runs: it can't be forgotten")
        self.host.domains.pop(id_, None)
        self.host.seeds.pop(id_, None)

    async def act(self, id_: ResourceId, act: Act) -> None:
        """Do one act."""
        domain = self._find(id_)
        running = domain.running is not None
        if act is Act.START:
            if not running:
                self._start(domain)
        elif act is Act.DESTROY:
            if running:
                self._ended(domain, "destroyed")
        elif act is Act.SHUTDOWN:
            if running and not self.config.deaf_guests:
                self._later(domain, self.config.shutdown_s, self._button)
        elif not running:
            raise Refused(CONFLICT, f"{id_} does not run: {act.value} is not possible")
        elif act is Act.RESET:
            self._boot(domain)
        else:
            self._pause(domain, act is Act.SUSPEND)

    async def domains(self, ids: Collection[ResourceId] | None = None) -> tuple[DomainState, ...]:
        """What was defined here; the foreign ones are not ours to see."""
        self._reach()
        there = self.host.domains
        wanted = there.keys() if ids is None else there.keys() & set(ids)
        return tuple(_state(id_, there[id_]) for id_ in sorted(wanted))

    def listen(self, listener: Listener) -> None:
        """Call `listener` whenever a domain changes."""
        self._listeners.append(listener)

    async def console_log(self, id_: ResourceId, max_bytes: int) -> bytes:
        """The end of what the pretended console has shown."""
        console = self._find(id_).console
        return console[max(0, len(console) - max_bytes) :]

    async def console_path(self, id_: ResourceId) -> str:
        """The socket of the pretended guest's line."""
        domain = self._find(id_)
        if domain.running is None:
            raise Refused(CONFLICT, f"{id_} does not run: it has no console")
        if domain.line is None:
            domain.line = FakeLine(domain.record)
        return domain.line.path

    async def plug(self, id_: ResourceId, device: DomainDisk | DomainNic) -> None:
        """Give the running guest a disk or a card."""
        domain, running = self._running(id_)
        if isinstance(device, DomainDisk):
            if device.cd and not any(d.cd for d in domain.started_with):
                raise Refused(NOT_SUPPORTED, f"{id_} was started without a CD-ROM drive")
            if device.cd:
                running = running.model_copy(update={"disks": _without_cd(running)})
            if device.name not in (d.name for d in running.disks):
                self._check_devices((device,), ())
                domain.running = running.model_copy(update={"disks": (*running.disks, device)})
        elif device.mac not in (n.mac for n in running.nics):
            self._check_devices((), (device,))
            domain.running = running.model_copy(update={"nics": (*running.nics, device)})
        self.host.tell(id_)

    async def unplug(self, id_: ResourceId, device: str) -> None:
        """Ask the guest to let go of a disk (by name) or a card (by MAC)."""
        domain, running = self._running(id_)
        if any(d.cd and d.name == device for d in running.disks):
            domain.running = running.model_copy(update={"disks": _without_cd(running)})
            self.host.tell(id_)
        elif not self.config.keeps_devices:
            loop = asyncio.get_running_loop()
            loop.call_later(self.config.unplug_s, self._let_go, domain, device)

    async def scale(self, id_: ResourceId, vcpus: int, memory_mib: int) -> None:
        """Give the running guest more processors and memory."""
        domain, running = self._running(id_)
        more_mib = memory_mib - running.memory_mib
        if vcpus > max(running.vcpus, running.max_vcpus or 0):
            raise Refused(NOT_SUPPORTED, f"{id_} was not made for {vcpus} vcpus")
        if more_mib > 0 and (memory_mib > (running.max_memory_mib or 0)):
            raise Refused(NOT_SUPPORTED, f"{id_} was not made for {memory_mib} MiB")
        if more_mib > 0 and more_mib % MEMORY_STEP_MIB:
            raise Refused(NOT_SUPPORTED, f"memory comes in steps of {MEMORY_STEP_MIB} MiB")
        sizes = {
            "vcpus": max(vcpus, running.vcpus),
            "memory_mib": max(memory_mib, running.memory_mib),
        }
        domain.uses_mib += int(sizes["memory_mib"]) - running.memory_mib
        domain.running = running.model_copy(update=sizes)
        self.host.tell(id_)

    async def resize(self, id_: ResourceId, disk: str, size_bytes: int) -> None:
        """Show the running guest that a disk has grown."""
        domain, running = self._running(id_)
        if disk not in (d.name for d in running.disks):
            raise Refused(CONFLICT, f"{id_} has no disk {disk}")
        export = next(d.export for d in running.disks if d.name == disk)
        if size_bytes > self.host.sizes.get(export, size_bytes):
            raise Retry(DRIVER_FAILED, f"disk {disk} is smaller", retry_after_s=0.05)
        domain.shown[disk] = size_bytes

    async def host_memory(self) -> HostMemory:
        """What the host says, less what balloons gave it."""
        self._reach()
        gave = sum(
            d.running.memory_mib - d.uses_mib for d in self.host.domains.values() if d.running
        )
        available = self.host.available_mib + gave
        return HostMemory(total_mib=self.config.memory_mib, available_mib=available)

    async def set_target(self, id_: ResourceId, memory_mib: int) -> None:
        """The guest obeys at once."""
        domain, running = self._running(id_)
        if memory_mib > running.memory_mib:
            raise Refused(INVALID, f"{id_} has {running.memory_mib} MiB")
        domain.uses_mib = memory_mib

    async def tune(self, id_: ResourceId, tuning: DomainTuning) -> None:
        """Weigh, limit and pin the running guest."""
        domain, running = self._running(id_)
        self._check_tuning(tuning)
        domain.running = running.model_copy(update={"cpu": tuning})
        domain.tampered = False
        self.host.tell(id_)

    def _check_tuning(self, tuning: DomainTuning) -> None:
        controlled = tuning.shares is not None or tuning.limit_pct is not None
        if controlled and not self.config.cpu_control:
            raise Refused(NOT_SUPPORTED, "cpu shares and limits have no effect here")
        if any(n >= self.config.cpus for n in (*tuning.pin, *tuning.allowed)):
            raise Fatal(DRIVER_FAILED, f"there are {self.config.cpus} processors: {tuning}")

    async def stats(self, id_: ResourceId) -> GuestStats:
        """What a pretended guest uses: more at every look."""
        domain, running = self._running(id_)
        domain.looks += 1
        return GuestStats(
            cpu_ns=domain.looks * 1_000_000,
            vcpus=running.vcpus,
            memory_kib=domain.uses_mib * 1024,
            available_kib=max(0, domain.uses_mib - domain.needs_mib) * 1024,
            disks=tuple(DiskCounters(name=d.name, read_bytes=512) for d in running.disks),
            nics=tuple(NicCounters(mac=n.mac) for n in running.nics),
        )

    def _let_go(self, domain: FakeDomain, device: str) -> None:
        if domain.running is None or not domain.ready:
            return  # a guest that is off or still boots does not hear it
        disks = tuple(d for d in domain.running.disks if d.name != device)
        nics = tuple(n for n in domain.running.nics if n.mac != device)
        domain.running = domain.running.model_copy(update={"disks": disks, "nics": nics})
        self.host.tell(domain.defined.id)

    def _running(self, id_: ResourceId) -> tuple[FakeDomain, DomainSpec]:
        domain = self._find(id_)
        if domain.running is None:
            raise Refused(CONFLICT, f"{id_} does not run: nothing can be plugged")
        return domain, domain.running

    async def screen_path(self, id_: ResourceId) -> str:
        """The socket of the pretended guest's screen."""
        return self._screen(id_).path

    async def screenshot(self, id_: ResourceId) -> bytes:
        """What the pretended guest's screen shows."""
        return self._screen(id_).picture()

    async def put_seed(self, id_: ResourceId, seed: Seed | None) -> None:
        """Keep what the guest is told."""
        self._reach()
        if seed is None:
            self.host.seeds.pop(id_, None)
        else:
            self.host.seeds[id_] = seed

    async def report(self, id_: ResourceId) -> GuestReport | None:
        """What the pretended agent says, in a guest that is ready."""
        domain = self._find(id_)
        there = self.config.agent and domain.ready and domain.power is Power.RUNNING
        return domain.agent.report() if there else None

    async def freeze(self, id_: ResourceId, bound_s: float) -> int:
        """Freeze the one file system."""
        return self._agent(id_).freeze(bound_s)

    async def thaw(self, id_: ResourceId) -> int:
        """Thaw it."""
        return self._agent(id_).thaw()

    async def set_time(self, id_: ResourceId) -> None:
        """Note that the clock was set."""
        self._agent(id_).clock_sets += 1

    def _agent(self, id_: ResourceId) -> FakeAgent:
        domain = self._find(id_)
        if domain.running is None:
            raise Refused(CONFLICT, f"{id_} does not run: nobody answers in it")
        if not (self.config.agent and domain.ready and domain.power is Power.RUNNING):
            raise Retry(UNAVAILABLE, f"no agent answers in {id_}", retry_after_s=0.05)
        return domain.agent

    def _screen(self, id_: ResourceId) -> FakeScreen:
        domain = self._find(id_)
        if domain.running is None:
            raise Refused(CONFLICT, f"{id_} does not run: it has no screen")
        if domain.screen is None:
            domain.screen = FakeScreen()
        return domain.screen

    def hear(self, event: DomainEvent) -> None:
        """Called by the host; tells the listeners from the event loop, as the real one does."""
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener, event)

    def _reach(self) -> None:
        if self.host.away:
            raise Retry(UNAVAILABLE, "the hypervisor is away", retry_after_s=0.05)

    def _find(self, id_: ResourceId) -> FakeDomain:
        self._reach()
        if id_ not in self.host.domains:
            raise Refused(NOT_FOUND, f"no domain {id_} on this node")
        return self.host.domains[id_]

    def _start(self, domain: FakeDomain) -> None:
        spec = domain.defined
        if self.config.start_fails:
            raise Retry(DRIVER_FAILED, "the hypervisor refuses to start guests")
        if spec.seed is not None and self.host.seeds[spec.id].digest != spec.seed:
            raise Fatal(DRIVER_FAILED, f"{spec.id} is to start with a seed that is not there")
        self._check_devices(spec.disks, spec.nics)
        domain.running = spec
        domain.started_with = spec.disks
        domain.uses_mib = spec.memory_mib
        domain.tampered = False
        domain.console = b""
        domain.power, domain.reason = Power.RUNNING, "booted"
        self._boot(domain)

    def _check_devices(self, disks: tuple[DomainDisk, ...], nics: tuple[DomainNic, ...]) -> None:
        if self.config.check_devices:
            missing = {disk.socket for disk in disks} - self.host.sockets
            missing |= {nic.device for nic in nics} - self.host.devices
            if missing:
                raise Retry(DRIVER_FAILED, f"not there: {', '.join(sorted(missing))}")
        mine = {d.export for d in disks}
        for other in self.host.domains.values():
            if shared := mine & _exports(other):
                raise Fatal(DRIVER_FAILED, f"two guests on the same disk: {sorted(shared)}")

    def _boot(self, domain: FakeDomain) -> None:
        domain.ready = False
        domain.show(b"booting\r\n")
        self.host.tell(domain.defined.id)
        self._later(domain, self.config.boot_s, self._booted)

    def _booted(self, domain: FakeDomain) -> None:
        if domain.power is Power.PAUSED:  # time stands still in there
            self._later(domain, self.config.boot_s, self._booted)
            return
        domain.boots += 1
        domain.ready = True
        domain.show(f"boots: {domain.boots}\r\nREADY\r\n".encode())
        self.host.tell(domain.defined.id)

    def _button(self, domain: FakeDomain) -> None:
        if domain.power is Power.PAUSED:
            self._later(domain, self.config.shutdown_s, self._button)
        else:
            self._ended(domain, "shutdown")

    def _ended(self, domain: FakeDomain, reason: str) -> None:
        domain.end(reason)
        self.host.tell(domain.defined.id)

    def _pause(self, domain: FakeDomain, pause: bool) -> None:
        wanted = Power.PAUSED if pause else Power.RUNNING
        if domain.power is not wanted:
            domain.power, domain.reason = wanted, "user"
            self.host.tell(domain.defined.id)

    def _later(
        self, domain: FakeDomain, delay_s: float, what: Callable[[FakeDomain], None]
    ) -> None:
        domain.forget_clock()
        domain.clock = asyncio.get_running_loop().call_later(delay_s, what, domain)


def _without_cd(spec: DomainSpec) -> tuple[DomainDisk, ...]:
    return tuple(disk for disk in spec.disks if not disk.cd)


def _exports(domain: FakeDomain) -> set[str]:
    return {disk.export for disk in domain.running.disks} if domain.running else set()


def _state(id_: ResourceId, domain: FakeDomain) -> DomainState:
    spec = domain.running or domain.defined
    return DomainState(
        id=id_,
        name=spec.name,
        generation=spec.generation,
        epoch=spec.epoch,
        power=domain.power,
        reason=domain.reason,
        memory_mib=spec.memory_mib,
        vcpus=spec.vcpus,
        ready=domain.ready,
        disks=tuple(d.name for d in domain.running.disks) if domain.running else (),
        nics=tuple(n.mac for n in domain.running.nics) if domain.running else (),
        cpu=domain.running.cpu if domain.running and not domain.tampered else None,
    )


@hookimpl
def trivet_hypervisor_drivers() -> list[type[Hypervisor]]:
    """The pretended hypervisor."""
    return [FakeHypervisor]
