"""What a node's agent can be told to do for a VM; applying any of them twice equals once."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic, DomainTuning
from trivet.contracts.compute.vm import Power, VmDisk, VmNic


@dataclass(frozen=True)
class Preparation:
    """What a VM starts with (for the hypervisor, and as its status tells it), and what is still
    missing, as sentences; `pool_full`: what a guest with a failed disk misses is space."""

    disks: tuple[DomainDisk, ...] = ()
    nics: tuple[DomainNic, ...] = ()
    vm_disks: tuple[VmDisk, ...] = ()
    vm_nics: tuple[VmNic, ...] = ()
    missing: tuple[str, ...] = ()
    pool_full: bool = False


@dataclass(frozen=True)
class MarkUnknown:
    """Tell that the VM's power is not known, and why."""

    reason: str


@dataclass(frozen=True)
class AdoptEpoch:
    """Bring the VM's epoch up to the one that its domain was started under; `active`: that
    run goes on."""

    epoch: int
    active: bool


@dataclass(frozen=True)
class Prepare:
    """Attach the VM's disks here, and look at its ports and at what is promised to it."""


@dataclass(frozen=True)
class Boot:
    """Put `epoch` on record, define the domain under it, start it: in this order."""

    epoch: int


@dataclass(frozen=True)
class AskShutdown:
    """Ask the guest to go off (ACPI)."""


@dataclass(frozen=True)
class CutPower:
    """End the guest at once."""


@dataclass(frozen=True)
class Suspend:
    """Stop the guest's processors."""


@dataclass(frozen=True)
class Resume:
    """Let the guest's processors run on."""


@dataclass(frozen=True)
class Undefine:
    """Forget the stopped domain."""


@dataclass(frozen=True)
class Detach:
    """Let go of all of the VM's disks."""


@dataclass(frozen=True)
class LetGo:
    """Tell that this node keeps nothing more for a VM that is deleted."""


@dataclass(frozen=True)
class Live:
    """What the running guest has: disks by name, cards by MAC, processors and memory (0: that
    is not known); `can_plug` as in `Seen`; `tuned`: it gets its processors as it should."""

    disks: tuple[str, ...]
    nics: tuple[str, ...]
    vcpus: int
    memory_mib: int
    can_plug: bool
    tuned: bool = False


@dataclass(frozen=True)
class Record:
    """Write what is seen into the VM's status."""

    power: Power
    reason: str
    ready: bool
    live: Live | None = None


@dataclass(frozen=True)
class Release:
    """Let go of disks (by name) and cards (by port) that the guest does not have any more and
    that are not asked for any more."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class PlugDisk:
    """Attach the disk of that name here, and give it to the running guest."""

    name: str


@dataclass(frozen=True)
class PlugNic:
    """Give the card on that port to the running guest."""

    port: str


@dataclass(frozen=True)
class Unplug:
    """Ask the guest to let go of a disk (by name) or a card (by MAC)."""

    device: str


@dataclass(frozen=True)
class Scale:
    """Give the running guest that many processors and that much memory."""

    vcpus: int
    memory_mib: int


@dataclass(frozen=True)
class Tune:
    """Have the running guest get its processors so."""

    tuning: DomainTuning


@dataclass(frozen=True)
class ShowSize:
    """Show the running guest the new size of the disk of that name, once it is served."""

    name: str


@dataclass(frozen=True)
class RecordPowerOff:
    """The run ended by the guest's own doing: the VM is wanted off from now on."""

    reason: str
    message: str


@dataclass(frozen=True)
class SetStopBy:
    """Put on record when the guest's power is cut."""

    grace_s: int


@dataclass(frozen=True)
class ForgetStop:
    """A stop that a start overtook has come to nothing."""


@dataclass(frozen=True)
class Wait:
    """Do nothing, and tell why; `reason` is the condition's."""

    message: str
    reason: str = "Waits"


Action = (
    MarkUnknown
    | AdoptEpoch
    | Prepare
    | Boot
    | AskShutdown
    | CutPower
    | Suspend
    | Resume
    | Undefine
    | Detach
    | LetGo
    | Record
    | Release
    | PlugDisk
    | PlugNic
    | Unplug
    | Scale
    | Tune
    | ShowSize
    | RecordPowerOff
    | SetStopBy
    | ForgetStop
    | Wait
)
