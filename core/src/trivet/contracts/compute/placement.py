"""What placement plugins see and answer: pure filters and scorers of nodes for one VM.

A filter says why a node can't take the VM, a scorer how well it would (0-1); both are plain
functions without I/O, so that a decision can be replayed and explained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from trivet.contracts.compute.vm import VmSpec


@dataclass(frozen=True)
class CpuRoom:
    """The processors of a node beside what others than the VM in question have of them: `cpus` how
    many, `cores` the numbers of those in each core (empty: each is a core), `held` those that are
    others' own, `pinned` those that others name. The rest is shared, up to `overcommit` vcpus each;
    `used_vcpus` and `used_pct` (per cent of one processor) are taken of that."""

    cpus: int = 0
    cores: tuple[tuple[int, ...], ...] = ()
    held: frozenset[int] = frozenset()
    pinned: frozenset[int] = frozenset()
    overcommit: float = 1.0
    used_vcpus: int = 0
    used_pct: int = 0


@dataclass(frozen=True)
class NodeView:
    """A node as placement sees it. `cpu_control`: whether shares and limits have an effect there;
    None: that is not known."""

    name: str
    ready: bool
    maintenance: bool
    cpus: int
    allocatable_vcpus: int
    allocatable_memory_mib: int
    used_vcpus: int
    used_memory_mib: int
    firmware: tuple[str, ...] = ("bios",)
    tpm: bool = False
    cpu_control: bool | None = None
    room: CpuRoom = CpuRoom()
    vms: tuple[str, ...] = ()


class PlacementFilter(Protocol):
    """Refuses nodes for a reason."""

    name: ClassVar[str]

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why `node` can't take the VM, as a sentence, or None if it can."""
        ...


class PlacementScorer(Protocol):
    """Prefers nodes."""

    name: ClassVar[str]
    weight: ClassVar[float]

    def score(self, vm: VmSpec, node: NodeView) -> float:
        """How well `node` suits the VM: 0 (badly) to 1 (best)."""
        ...
