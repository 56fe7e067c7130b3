"""The law for hypervisor drivers: what runs guests on one node.

The driver is told whole domains and single acts; it decides nothing. What it runs it also
records with the domain (id, generation, epoch), so that the cluster's state can be rebuilt
from its nodes. A domain that the driver did not define is never listed and never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Protocol

from trivet.contracts.compute.node import Inventory
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import Driver
from trivet.contracts.model import Model, ResourceId


class DomainDisk(Model):
    """A disk reached as NBD over a unix socket. Write errors stop the guest, they are
    never shown to it. `cd`: a CD-ROM, read-only; a domain has one drive at most."""

    name: str
    socket: str
    export: str
    serial: str
    boot_order: int | None = None
    cd: bool = False


class DomainNic(Model):
    """A card on a tap device that the network service has made; never made here. It is known
    by its MAC."""

    device: str
    mac: str
    mtu: int


class DomainTuning(Model):
    """How a domain gets its processors: `shares` weigh against the node's other domains (None:
    as the hypervisor has it), `limit_pct` is per vcpu. Vcpu i runs on host processor `pin[i]`;
    whatever is not pinned runs on `allowed` (empty: on any)."""

    shares: int | None = None
    limit_pct: int | None = None
    pin: tuple[int, ...] = ()
    allowed: tuple[int, ...] = ()


class DomainSpec(Model):
    """A whole domain. `id` is the VM's; `name` is for people. With `max_vcpus` or
    `max_memory_mib` it is made so that it can grow that far while it runs. `seed` is the digest of
    the one that it is given (`SeedDisks.put_seed` comes before), read-only, behind its disks."""

    id: ResourceId
    name: str
    project: str
    generation: int
    epoch: int
    vcpus: int
    memory_mib: int
    max_vcpus: int | None = None
    max_memory_mib: int | None = None
    firmware: str = "bios"
    tpm: bool = False
    cpu: DomainTuning = DomainTuning()
    disks: tuple[DomainDisk, ...] = ()
    nics: tuple[DomainNic, ...] = ()
    seed: str | None = None


class DomainState(Model):
    """A domain as it is. `generation` and `epoch` are what was recorded with it; `reason` is
    why it has that power (`booted`, `shutdown`, `destroyed`, `crashed`, `io_error`, `user`,
    `unknown`); `ready` once the serial console has shown the guest's READY or a login. `disks`
    (by name) and `nics` (by MAC) are those that the running guest has now, `cpu` is how it gets its
    processors; None: not known, or somebody else changed it."""

    id: ResourceId
    name: str
    generation: int
    epoch: int
    power: Power
    reason: str = "unknown"
    memory_mib: int = 0
    vcpus: int = 0
    ready: bool = False
    disks: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    cpu: DomainTuning | None = None


class Act(StrEnum):
    """A single act on a domain. `shutdown` asks the guest (ACPI); `destroy` does not."""

    START = "start"
    SHUTDOWN = "shutdown"
    DESTROY = "destroy"
    RESET = "reset"
    SUSPEND = "suspend"
    RESUME = "resume"


class DomainEvent(Model):
    """Something changed with that domain; `power` and `reason` as in `DomainState`, or `hardware`
    where a device came or went. Only a hint to look: events may be lost."""

    id: ResourceId
    power: Power
    reason: str


Listener = Callable[[DomainEvent], None]


class Hypervisor(Driver, Protocol):
    """Runs guests on this node.

    `define` of what is defined alike does nothing; of a stopped domain replaces it; of a
    running one keeps it for the next start. Acts are idempotent: starting what runs,
    destroying what is stopped, or undefining what is gone succeeds. An act on an unknown
    domain raises `Refused(NOT_FOUND)`; `undefine` of a running one `Refused(IN_USE)`.
    """

    async def inventory(self) -> Inventory:
        """What this node has."""
        ...

    async def define(self, domain: DomainSpec) -> None:
        """Make the domain known, with all of its metadata; does not start it."""
        ...

    async def undefine(self, id_: ResourceId) -> None:
        """Forget a stopped domain and its console log."""
        ...

    async def act(self, id_: ResourceId, act: Act) -> None:
        """Do one act; returns when the hypervisor has accepted it (`shutdown` takes longer)."""
        ...

    async def domains(self, ids: Collection[ResourceId] | None = None) -> tuple[DomainState, ...]:
        """The domains of Trivet on this node: all, or those of `ids` that there are."""
        ...

    def listen(self, listener: Listener) -> None:
        """Call `listener` in the event loop whenever a domain changes."""
        ...

    async def console_log(self, id_: ResourceId, max_bytes: int) -> bytes:
        """The end of what the serial console has shown since the last start."""
        ...

    async def console_path(self, id_: ResourceId) -> str:
        """The unix socket of the serial console of a running domain."""
        ...
