"""Vm: a virtual machine, what was asked of it and how it is.

Power as asked is `running`, `stopped` or `paused`; power as seen can also be `unknown`, which
never reads as stopped. A guest that powers itself off has its `spec.power` set to `stopped` by
its node's agent: the guest's owner asked, from inside.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from trivet.contracts.compute.guest_agent import AgentStatus
from trivet.contracts.compute.seed import USER_DATA_BYTES
from trivet.contracts.event import EventType
from trivet.contracts.model import Model, Name, ResourceId
from trivet.contracts.network.port import PortQos
from trivet.contracts.resource import Kind, Resource, Scope, Status
from trivet.contracts.storage.volume import Qos


class Power(StrEnum):
    """Power of a VM."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    UNKNOWN = "unknown"


class WantedPower(StrEnum):
    """Power that can be asked for."""

    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"


class DiskRequest(Model):
    """A disk of a VM: its volume is made for it, and deleted when the disk or the VM goes. The
    first one gets the image (or the VM's `origin`'s, as all do), and stays. A disk can be added,
    taken away and grown while the VM runs. `qos` is what its volume begins with; later it is the
    volume's to change, live."""

    name: Name = "root"
    size_gib: int = Field(ge=1, le=65536)
    replicas: int = Field(default=1, ge=1, le=3)
    pool: Name | None = None
    thin: bool = True
    qos: Qos = Qos()


class NicRequest(Model):
    """A network card: on which network, with which address (else one is chosen), behind
    which security groups. `name` tells a VM's cards apart; left out, one is given: `0`, `1`, ...
    A card can be added and taken away while the VM runs, and its groups and bounds be changed.
    `qos` left out: the bounds of its port stay as they are (none, at first)."""

    network: Name
    name: Name | None = None
    address: str | None = Field(default=None, max_length=45)
    security_groups: tuple[Name, ...] = ("default",)
    qos: PortQos | None = None


class CpuTuning(Model):
    """`shares` weigh against other VMs of the node (left out: 1024 for each vcpu); reservation and
    limit are in per cent of one processor for each vcpu. What is reserved is kept free for the VM
    where it is placed, and it gets it when others want the processors too; beyond the limit it
    gets nothing. `pin` binds vcpu i to host processor pin[i]. `exclusive`: as many whole cores as
    it has vcpus are its own; Trivet chooses them, and keeps all other VMs off them."""

    shares: int | None = Field(default=None, ge=2, le=262144)
    reservation_pct: int | None = Field(default=None, ge=1, le=100)
    limit_pct: int | None = Field(default=None, ge=1, le=100)
    pin: tuple[Annotated[int, Field(ge=0)], ...] = ()
    exclusive: bool = False

    @model_validator(mode="after")
    def _coherent(self) -> CpuTuning:
        if self.limit_pct is not None and (self.reservation_pct or 0) > self.limit_pct:
            raise ValueError(f"reservation_pct is more than limit_pct ({self.limit_pct})")
        if self.exclusive and self.pin:
            raise ValueError("exclusive chooses the processors itself: leave pin out")
        return self


class Placement(Model):
    """Where the VM may run: `nodes` empty means anywhere."""

    nodes: tuple[Name, ...] = ()
    keep_together: tuple[Name, ...] = ()
    keep_apart: tuple[Name, ...] = ()
    strength: str = Field(default="must", pattern="^(must|prefer)$")


class Hardware(Model):
    """What a VM is made of beside its disks and cards; `max_*` as in the spec."""

    vcpus: int
    memory_mib: int
    cpu: CpuTuning = CpuTuning()
    max_vcpus: int | None = None
    max_memory_mib: int | None = None
    tpm: bool = False
    cdrom: bool = False


SshKey = Annotated[
    str,
    StringConstraints(
        max_length=8192, pattern=r"^[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,}={0,3}( [ -~]{0,255})?$"
    ),
]
"""A public key as OpenSSH writes it: type, key, comment."""


CD_PREFIX = "cd-"


class VmSpec(Model):
    """What is asked of a VM. An image goes on disks[0]; with an image and no disks, one of
    the image's size is made. With `origin`, a VM, the disks begin as those of the same name of that
    one, as they were together at one moment. `iso` is an image that is put into a CD-ROM drive: the
    VM boots from it where its disks have nothing to boot; it can be taken out and changed while the
    VM runs, if it was started with one.

    `max_vcpus` and `max_memory_mib` are how far a run can grow without a stop; left out, vcpus and
    memory change at the next start. (A Linux guest that can be given memory sets 64 MiB aside for
    that: it needs more than 128 MiB to boot.) `tpm`: a TPM 2.0, whose state is the VM's own, as is
    that of a UEFI firmware. `memory_min_mib`: while its node is short of memory the guest may be
    asked to use less (`status.balloon`), but never less than that.

    A `template` is what clones are made from: it is stopped, and stays as it is until it is none
    any more. Its clones are none.

    `user_data` (as cloud-init takes it) and `ssh_keys` reach the guest on a disk that is made
    anew at each start; cloud-init itself obeys most of it at the guest's first one only."""

    vcpus: int = Field(default=1, ge=1, le=256)
    memory_mib: int = Field(default=512, ge=16, le=4 * 1024 * 1024)
    memory_min_mib: int | None = Field(default=None, ge=16, le=4 * 1024 * 1024)
    max_vcpus: int | None = Field(default=None, ge=1, le=256)
    max_memory_mib: int | None = Field(default=None, ge=16, le=4 * 1024 * 1024)
    image: Name | None = None
    iso: Name | None = None
    origin: Name | None = None
    clone: str = Field(default="linked", pattern="^(linked|full)$")
    disks: tuple[DiskRequest, ...] = Field(default=(), max_length=16)
    nics: tuple[NicRequest, ...] = Field(default=(), max_length=8)
    power: WantedPower = WantedPower.RUNNING
    template: bool = False
    firmware: str = Field(default="bios", pattern="^(bios|uefi)$")
    tpm: bool = False
    cpu: CpuTuning = CpuTuning()
    placement: Placement = Placement()
    user_data: str | None = Field(default=None, max_length=USER_DATA_BYTES)
    ssh_keys: tuple[SshKey, ...] = Field(default=(), max_length=64)

    @property
    def hardware(self) -> Hardware:
        """The hardware that is asked for."""
        return Hardware(
            vcpus=self.vcpus,
            memory_mib=self.memory_mib,
            cpu=self.cpu,
            max_vcpus=self.max_vcpus,
            max_memory_mib=self.max_memory_mib,
            tpm=self.tpm,
            cdrom=self.iso is not None,
        )

    @property
    def cd(self) -> str | None:
        """The name under which the CD-ROM is one of the VM's disks."""
        return f"{CD_PREFIX}{self.iso}"[:63].rstrip("-") if self.iso is not None else None

    @model_validator(mode="after")
    def _coherent(self) -> VmSpec:
        names = [d.name for d in self.disks]
        if len(set(names)) != len(names):
            raise ValueError("two disks have the same name")
        if self.cd in names:
            raise ValueError(f"a disk can't be called {self.cd}: the CD-ROM is")
        if self.image is not None and self.origin is not None:
            raise ValueError("disks[0] begins as the image, or as the origin's: leave one out")
        cards = [n.name for n in self.nics if n.name is not None]
        if len(set(cards)) != len(cards):
            raise ValueError("two nics have the same name")
        if self.memory_min_mib is not None and self.memory_min_mib > self.memory_mib:
            raise ValueError(f"memory_min_mib is more than memory_mib ({self.memory_mib})")
        if self.max_vcpus is not None and self.max_vcpus < self.vcpus:
            raise ValueError(f"max_vcpus is less than vcpus ({self.vcpus})")
        if self.max_memory_mib is not None and self.max_memory_mib < self.memory_mib:
            raise ValueError(f"max_memory_mib is less than memory_mib ({self.memory_mib})")
        if self.user_data is not None and len(self.user_data.encode()) > USER_DATA_BYTES:
            raise ValueError(f"user_data has more than {USER_DATA_BYTES} bytes")
        if self.cpu.pin and len(self.cpu.pin) != self.vcpus:
            raise ValueError("cpu.pin names one processor for each vcpu")
        return self


class VmDisk(Model):
    """A disk as it is (`cd`: a CD-ROM): the volume behind it, and whether the guest has it.
    `size_gib` is what its volume was asked to have, `guest_gib` what the guest was shown (0: not
    known). One that the spec asks for no more is `released` once its node has let go of it: its
    volume goes."""

    name: str
    volume: str
    attached: bool = False
    epoch: int = 0
    size_gib: int = 0
    guest_gib: int = 0
    cd: bool = False
    released: bool = False


class VmNic(Model):
    """A network card as it is: the port behind it, and whether the guest has it; `released` as
    for a disk. A record of before cards had names has none."""

    port: str
    network: str
    name: str = ""
    mac: str | None = None
    addresses: tuple[str, ...] = ()
    security_groups: tuple[str, ...] | None = None
    qos: PortQos | None = None
    plugged: bool = False
    released: bool = False


class BalloonStatus(Model):
    """What a guest was asked to use of its memory, while its node was short of it; `epoch` is the
    run that was asked."""

    target_mib: int
    epoch: int


class VmStatus(Status):
    """`epoch` grows with every start: what runs under an older one is not this VM.

    `stop_by` is set while Trivet wants the guest off (a stop, a drain): then its power is cut
    (UTC). A guest that goes off without it did so by itself. `runs_with` is the hardware of the
    present run, which began at `started_at`. `crashes` counts runs that ended soon after their
    start and that nobody had asked to end; the next one begins at `restart_at`, or later.
    """

    power: Power = Power.STOPPED
    node: str | None = None
    epoch: int = 0
    addresses: tuple[str, ...] = ()
    disks: tuple[VmDisk, ...] = ()
    nics: tuple[VmNic, ...] = ()
    accel: str | None = None
    guest_ready: bool = False
    agent: AgentStatus = AgentStatus()
    placement: str = ""
    stop_by: datetime | None = None
    runs_with: Hardware | None = None
    started_at: datetime | None = None
    crashes: int = 0
    restart_at: datetime | None = None
    balloon: BalloonStatus | None = None


HARDWARE = "HardwareCurrent"
APPLYING, NEXT_START = "Applying", "NextStart"
"""The condition that says whether the running guest has the hardware that the spec asks for:
`Applying` while Trivet brings it in line, `NextStart` where that needs a stop and a start."""


class Vm(Resource[VmSpec, VmStatus]):
    """A virtual machine."""

    kind: str = "Vm"

    def settled(self) -> bool:
        """Settled also means: the power that was asked for is the power that is seen, and the
        hardware that can change while the guest runs has changed."""
        failed = self.status.phase == "failed"
        hardware = self.status.condition(HARDWARE)
        if hardware is not None and hardware.reason == APPLYING:
            return False
        return super().settled() and (failed or self.status.power.value == self.spec.power.value)


VM_EVENTS = {
    Power.RUNNING: EventType("compute", "vm", "started"),
    Power.STOPPED: EventType("compute", "vm", "stopped"),
    Power.PAUSED: EventType("compute", "vm", "paused"),
    Power.UNKNOWN: EventType("compute", "vm", "lost"),
}
VM_RESUMED = EventType("compute", "vm", "resumed")
VM_PLACED = EventType("compute", "vm", "placed")
VM_BOOTED = EventType("compute", "vm", "booted")
VM_DIED = EventType("compute", "vm", "died")
"""Its run ended, and neither its owner nor Trivet nor the guest itself had asked for that."""


def _vm_events(before: Vm | None, after: Vm | None) -> tuple[EventType, ...]:
    if before is None or after is None:
        return ()
    events: list[EventType] = []
    if after.status.node and after.status.node != before.status.node:
        events.append(VM_PLACED)
    was, now = before.status.power, after.status.power
    if was is Power.PAUSED and now is Power.RUNNING:
        events.append(VM_RESUMED)
    elif was is not now:
        events.append(VM_EVENTS[now])
    if after.status.restart_at and after.status.restart_at != before.status.restart_at:
        events.append(VM_DIED)
    if after.status.guest_ready and not before.status.guest_ready:
        events.append(VM_BOOTED)
    return tuple(events)


VM = Kind(
    Vm,
    "vm",
    "vms",
    "compute",
    Scope.PROJECT,
    "A virtual machine",
    extra_events=_vm_events,
    extra_event_types=(*VM_EVENTS.values(), VM_RESUMED, VM_PLACED, VM_BOOTED, VM_DIED),
    takes=lambda vm: {"vms": 1, "vcpus": vm.spec.vcpus, "memory_mib": vm.spec.memory_mib},
)

VmId = ResourceId
