"""The hypervisor driver on libvirt and QEMU.

It carries out single acts and says what it sees; when and why is decided elsewhere. It keeps
no state of its own: what is defined is in libvirt, with our record in each domain's metadata,
and a domain without that record is not ours, is never listed and never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import shutil
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from trivet.contracts.compute.guest_agent import GuestReport
from trivet.contracts.compute.hypervisor import (
    Act,
    DomainEvent,
    DomainSpec,
    DomainState,
    Hypervisor,
    Listener,
)
from trivet.contracts.compute.node import Accel, Inventory
from trivet.contracts.compute.seed import Seed
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import CONFLICT, Refused, TrivetError
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.plugins.compute import (
    accel,
    cpu_groups,
    inventory,
    libvirt_agent,
    libvirt_definitions,
    libvirt_domains,
    libvirt_screen,
    libvirt_xml,
    seed_disk,
)
from trivet.plugins.compute.console_follow import follow
from trivet.plugins.compute.console_watch import ConsoleLog
from trivet.plugins.compute.libvirt_connection import Connection
from trivet.plugins.compute.libvirt_hot_plug import LibvirtHotPlug
from trivet.plugins.compute.libvirt_reconnect import said_in_xml
from trivet.plugins.compute.libvirt_state import power_after

if TYPE_CHECKING:
    import libvirt

log = logging.getLogger(__name__)

DEFAULT_URI = "qemu+unix:///system?socket=/run/trivet/libvirt/libvirt-sock"
EMULATOR = "/usr/bin/qemu-system-x86_64"


class LibvirtConfig(Model):
    """`uri` of a libvirtd of its own; `accel` auto means: by a probe guest. `cgroups`: it puts
    guests into the cgroup of the node's prefix, which CPU shares and limits need, if there is one.
    `guest_logs` is where it writes what QEMU says of each guest; it never removes that itself.
    `validate_xml`: libvirt checks each definition by its schema, as the tests of this driver do."""

    uri: str = DEFAULT_URI
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    emulator: str = EMULATOR
    cgroups: bool = False
    guest_logs: Path = Path("/var/log/libvirt/qemu")
    validate_xml: bool = False
    uefi_code: str = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    uefi_vars: str = "/usr/share/OVMF/OVMF_VARS_4M.fd"


class LibvirtHypervisor(LibvirtHotPlug):
    """Runs guests through libvirtd; see the law in `contracts.compute.hypervisor`."""

    name: ClassVar[str] = "libvirt"
    Config: ClassVar[type[Model]] = LibvirtConfig

    def __init__(self, context: DriverContext, config: LibvirtConfig) -> None:
        self._context = context
        self._config = config
        self._connection = Connection(config.uri, self._on_event, self._on_up)
        self._verdict = accel.Verdict(accel=Accel.TCG, reason="not decided yet")
        self._cgroups, self._cgroups_why = False, "not looked for yet"
        self._unified = False
        self._facts: libvirt_xml.HostFacts | None = None
        self._ids: dict[str, ResourceId] = {}
        self._logs: dict[ResourceId, ConsoleLog] = {}
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<LibvirtHypervisor {self._config.uri} {self._verdict.accel.value}>"

    @classmethod
    async def probe(cls) -> Probe:
        """Usable with libvirt's Python binding, its daemon and QEMU installed."""
        if importlib.util.find_spec("libvirt") is None:
            return Probe(usable=False, reason="the Python module libvirt is not installed")
        for program in ("libvirtd", "qemu-system-x86_64", "qemu-img"):
            if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
                return Probe(usable=False, reason=f"{program} is not installed")
        return Probe(usable=True, reason="libvirt and QEMU are installed", score=10)

    async def open(self) -> None:
        """Decide the acceleration and connect; libvirtd may also come later."""
        config, context = self._config, self._context
        self._verdict = await accel.decide(config.accel, config.emulator, context.state_dir)
        self._cgroups, self._cgroups_why = _cgroups(context.prefix, config)
        group = cpu_groups.group_of(context.prefix)
        self._unified = group is not None and group.unified
        facts = _facts(context, config, self._verdict, self._cgroups)
        self._facts = replace(facts, unified=self._unified)
        await self._connection.open()
        self._spawn(follow(facts.log_dir, self._consoles, self._got_ready))

    async def close(self) -> None:
        """Disconnect; guests run on."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    async def inventory(self) -> Inventory:
        """What this node has; asks libvirtd for the hypervisor's version."""
        version = await self._connection.run(lambda c: c.getVersion())
        hardware = await asyncio.to_thread(inventory.find)
        firmware = ("bios", "uefi") if self._host.uefi_code else ("bios",)
        return Inventory(
            hypervisor="qemu",
            hypervisor_version=libvirt_domains.version_text(version),
            accel=self._verdict.accel,
            accel_reason=self._verdict.reason,
            cpu_model=hardware.cpu_model,
            cpus=hardware.cpus,
            memory_mib=hardware.memory_mib,
            cells=hardware.cells,
            sriov=hardware.sriov,
            usb=hardware.usb,
            firmware=firmware,
            tpm=self._host.tpm,
            cores=hardware.cores,
            cpu_control=self._cgroups,
            cpu_control_reason=self._cgroups_why,
        )

    async def define(self, domain: DomainSpec) -> None:
        """Make the domain known to libvirt, unless it is known alike."""
        self._ids[libvirt_xml.domain_uuid(domain.id)] = domain.id
        await self._connection.run(lambda c: self._define(c, domain))

    def _define(
        self, connection: libvirt.virConnect, domain: DomainSpec, *, anew: bool = False
    ) -> None:
        host = replace(self._host, reconnects=said_in_xml(connection))
        rendered = libvirt_xml.render(domain, host)
        validate = self._config.validate_xml
        libvirt_domains.define(connection, domain, rendered, anew=anew, validate=validate)

    async def altered(self) -> tuple[ResourceId, ...]:
        """The domains whose next start somebody else changed."""
        return await self._connection.run(libvirt_definitions.altered)

    async def restore(self, id_: ResourceId) -> None:
        """Define a domain as our record in it says."""

        def restore(connection: libvirt.virConnect) -> None:
            domain = libvirt_domains.find(connection, id_)
            record = libvirt_domains.record_of(domain, config=True)
            if record is not None and id_ in libvirt_definitions.altered(connection):
                self._define(connection, record[0], anew=True)

        await self._connection.run(restore)

    async def undefine(self, id_: ResourceId) -> None:
        """Forget a stopped domain, its firmware variables and its logs."""
        await self._connection.run(lambda c: libvirt_domains.undefine(c, id_))
        self._log_of(id_).remove()
        said = f"{libvirt_xml.domain_name(self._host, id_)}.log"
        (self._config.guest_logs / said).unlink(missing_ok=True)
        libvirt_xml.nvram_file(self._host, id_).unlink(missing_ok=True)
        libvirt_xml.seed_file(self._host, id_).unlink(missing_ok=True)
        libvirt_xml.console_socket(self._host, id_).unlink(missing_ok=True)
        libvirt_xml.screen_socket(self._host, id_).unlink(missing_ok=True)
        if self._cgroups:
            name = libvirt_xml.domain_name(self._host, id_)
            cpu_groups.forget(self._host.name_prefix, name)
        self._logs.pop(id_, None)
        self._ids.pop(libvirt_xml.domain_uuid(id_), None)

    async def act(self, id_: ResourceId, act: Act) -> None:
        """Do one act; see `libvirt_domains.perform`."""
        console = self._log_of(id_)

        def perform(connection: libvirt.virConnect) -> None:
            before = console.start if act is Act.START else _nothing
            libvirt_domains.perform(connection, id_, act, before)

        await self._connection.run(perform)
        if act is Act.RESET:
            console.restart()

    async def domains(self, ids: Collection[ResourceId] | None = None) -> tuple[DomainState, ...]:
        """The domains with our record, as they are."""
        found = await self._connection.run(lambda c: libvirt_domains.states(c, ids))
        self._ids.update({libvirt_xml.domain_uuid(state.id): state.id for state in found})
        return tuple(self._with_ready(state) for state in found)

    def listen(self, listener: Listener) -> None:
        """Call `listener` in the event loop whenever a domain changes."""
        self._listeners.append(listener)

    async def console_log(self, id_: ResourceId, max_bytes: int) -> bytes:
        """The end of what the console has shown; empty before the first start."""
        await self._connection.run(lambda c: libvirt_domains.find(c, id_).isActive())
        return await asyncio.to_thread(self._log_of(id_).tail, max_bytes)

    async def console_path(self, id_: ResourceId) -> str:
        """The unix socket of the console. `Refused` if the domain does not run."""
        active = await self._connection.run(lambda c: libvirt_domains.find(c, id_).isActive())
        if not active:
            raise Refused(CONFLICT, f"{id_} does not run: it has no console")
        return str(libvirt_xml.console_socket(self._host, id_))

    async def screen_path(self, id_: ResourceId) -> str:
        """The unix socket of the screen. `Refused` if the domain does not run."""
        active = await self._connection.run(lambda c: libvirt_domains.find(c, id_).isActive())
        if not active:
            raise Refused(CONFLICT, f"{id_} does not run: it has no screen")
        return str(libvirt_xml.screen_socket(self._host, id_))

    async def screenshot(self, id_: ResourceId) -> bytes:
        """What the screen shows, as PNG. `Refused` if the domain does not run."""
        return await self._connection.run(
            lambda c: libvirt_screen.screenshot(c, libvirt_domains.find(c, id_), id_)
        )

    async def put_seed(self, id_: ResourceId, seed: Seed | None) -> None:
        """Keep what the guest is told at its next start."""
        await asyncio.to_thread(seed_disk.put, libvirt_xml.seed_file(self._host, id_), seed)

    async def report(self, id_: ResourceId) -> GuestReport | None:
        """What the agent in the guest says; None without one."""
        return await self._connection.run(
            lambda c: libvirt_agent.report(libvirt_domains.find(c, id_))
        )

    async def freeze(self, id_: ResourceId, bound_s: float) -> int:
        """Freeze the guest's file systems, after starting what will thaw them."""
        uri, uuid = self._config.uri, libvirt_xml.domain_uuid(id_)
        await asyncio.to_thread(libvirt_agent.thaw_later, uri, uuid, bound_s)
        return await self._connection.run(
            lambda c: libvirt_agent.freeze(libvirt_domains.find(c, id_), id_)
        )

    async def thaw(self, id_: ResourceId) -> int:
        """Thaw them; a thaw that comes later by itself finds nothing to do."""
        return await self._connection.run(
            lambda c: libvirt_agent.thaw(libvirt_domains.find(c, id_), id_)
        )

    async def set_time(self, id_: ResourceId) -> None:
        """Set the guest's clock to the host's."""
        await self._connection.run(
            lambda c: libvirt_agent.set_time(libvirt_domains.find(c, id_), id_)
        )

    @property
    def _host(self) -> libvirt_xml.HostFacts:
        if self._facts is None:
            raise AssertionError("the driver was not opened")
        return self._facts

    def _log_of(self, id_: ResourceId) -> ConsoleLog:
        if id_ not in self._logs:
            self._logs[id_] = ConsoleLog(libvirt_xml.console_log(self._host, id_))
        return self._logs[id_]

    def _consoles(self) -> Mapping[ResourceId, ConsoleLog]:
        return {id_: self._log_of(id_) for id_ in self._ids.values()}

    def _got_ready(self, id_: ResourceId) -> None:
        self._tell(id_, Power.RUNNING, "booted")

    def _with_ready(self, state: DomainState) -> DomainState:
        runs = state.power in (Power.RUNNING, Power.PAUSED)
        return state.model_copy(update={"ready": runs and self._log_of(state.id).ready})

    def _on_event(self, domain_uuid: str, name: str, event: int, detail: int) -> None:
        """An event of libvirt, in the asyncio loop; other people's domains are passed over."""
        id_ = self._ids.get(domain_uuid)
        if id_ is None:
            return
        if name == "reboot":
            self._log_of(id_).restart()
            self._tell(id_, Power.RUNNING, "booted")
        elif name == "device":
            self._tell(id_, Power.RUNNING, "hardware")
        elif (told := power_after(event, detail)) is not None:
            self._tell(id_, *told)

    def _on_up(self) -> None:
        self._spawn(self._tell_all())

    async def _tell_all(self) -> None:
        """After a connection was made: whatever happened before it was not heard."""
        with contextlib.suppress(TrivetError):  # away again: the next connection tells all
            for state in await self.domains():
                self._tell(state.id, state.power, state.reason)

    def _tell(self, id_: ResourceId, power: Power, reason: str) -> None:
        event = DomainEvent(id=id_, power=power, reason=reason)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # one listener's fault must not keep others from hearing
                log.exception("a listener failed on %s", event)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cgroups(prefix: str, config: LibvirtConfig) -> tuple[bool, str]:
    """Whether guests are in a cgroup in which processors are shared out, and why (not)."""
    if not config.cgroups:
        return False, "plugins.libvirt.cgroups is not set in the settings"
    group = cpu_groups.group_of(prefix)
    if group is None:
        return False, "the kernel offers no cgroup controller for processors"
    if not group.works:
        return False, f"{group.folder} is not there: it is made before libvirt's daemon starts"
    return True, f"guests are in {group.folder}"


def _facts(
    context: DriverContext, config: LibvirtConfig, verdict: accel.Verdict, cgroups: bool
) -> libvirt_xml.HostFacts:
    """What the XML needs to know; makes the driver's folders."""
    console, logs = context.run_dir / "console", context.state_dir / "console"
    nvram, seeds = context.state_dir / "nvram", context.state_dir / "seed"
    for folder in (console, logs, nvram, seeds):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    uefi = Path(config.uefi_code).exists() and Path(config.uefi_vars).exists()
    return libvirt_xml.HostFacts(
        accel=verdict.accel,
        emulator=config.emulator,
        console_dir=console,
        log_dir=logs,
        nvram_dir=nvram,
        seed_dir=seeds,
        name_prefix=context.prefix,
        uefi_code=config.uefi_code if uefi else None,
        uefi_vars=config.uefi_vars if uefi else None,
        cgroups=cgroups,
        tpm=all(shutil.which(program) for program in ("swtpm", "swtpm_setup")),
    )


def _nothing() -> None:
    """What is to be done before an act other than a start."""


@hookimpl
def trivet_hypervisor_drivers() -> list[type[Hypervisor]]:
    """The libvirt driver."""
    return [LibvirtHypervisor]
