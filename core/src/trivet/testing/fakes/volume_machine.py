"""What a node of the fake volume engine has on disk and in its process table.

It lies in a `FakeMachine`, found by the driver's state folder, so that it outlives the driver as
replicas, servers and graphs do.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachSpec, PoolOnNode, ReplicaSpec, ServedReplica
from trivet.contracts.storage.replication import Copy, CopyState
from trivet.contracts.storage.volume import Missing

BLOCK = 4096


@dataclass
class FakeReplica:
    """A replica's record and its written blocks. `bad`: those that its disk does not give back,
    until they are written again; `refuses`: it answers writes with errors."""

    spec: ReplicaSpec
    size_bytes: int
    generation: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    epoch: int = 0
    floor: int = 0
    complete: bool = False
    disk: str = ""
    bad: set[int] = field(default_factory=set)
    refuses: bool = False

    def used_bytes(self) -> int:
        """What it takes in its pool."""
        return len(self.blocks) * BLOCK if self.spec.thin else self.size_bytes

    def write(self, offset: int, data: bytes) -> None:
        """Have these whole blocks."""
        for at in range(0, len(data), BLOCK):
            number = (offset + at) // BLOCK
            self.blocks[number] = data[at : at + BLOCK]
            self.bad.discard(number)

    def read(self, offset: int, length: int) -> bytes:
        """What whole blocks hold."""
        wanted = range(offset // BLOCK, (offset + length) // BLOCK)
        return b"".join(self.blocks.get(n, bytes(BLOCK)) for n in wanted)


@dataclass
class FakeSnapshot:
    """A volume in a snapshot; `blocks` are as they were."""

    pool: ResourceId
    size_bytes: int
    blocks: dict[int, bytes]
    complete: bool = False

    def used_bytes(self) -> int:
        """What it takes in its pool, were nothing shared."""
        return len(self.blocks) * BLOCK


@dataclass
class FakeMember:
    """A replica in a graph with slots; `broken`: its connections were ended."""

    served: ServedReplica
    reads: bool
    broken: bool = False


@dataclass
class FakeCopy:
    """A copy to a member; `todo`: the blocks that are still to be copied."""

    missing: Missing
    todo: set[int]
    blocks: int
    bytes_per_s: int
    error: str = ""

    @property
    def state(self) -> CopyState:
        """How it stands."""
        if self.error:
            return CopyState.FAILED
        return CopyState.RUNNING if self.todo else CopyState.DONE

    def told(self, volume: ResourceId, node: str) -> Copy:
        """As the contract shows it."""
        return Copy(
            volume=volume,
            node=node,
            missing=self.missing,
            state=self.state,
            done_bytes=(self.blocks - len(self.todo)) * BLOCK,
            total_bytes=self.blocks * BLOCK,
            error=self.error,
        )


@dataclass
class FakeGraph:
    """A graph with slots: its members, the local one first, and what it knows of them."""

    spec: AttachSpec
    members: dict[str, FakeMember]
    changes: set[int] = field(default_factory=set)
    copies: dict[str, FakeCopy] = field(default_factory=dict)
    failed_once: bool = False


@dataclass
class FakeMachine:
    """What one node keeps: it outlives the engine. `fail_before` and `fail_after` count how
    many more calls of an operation fail, before or after they had their effect; `looked_at` how
    many replicas and graphs were looked at in all; `sessions` the starts of servers, by socket;
    `hung` the volumes whose replicas here answer nothing while they are in it."""

    pools: dict[ResourceId, PoolOnNode] = field(default_factory=dict)
    made: dict[ResourceId, int] = field(default_factory=dict)
    replicas: dict[ResourceId, FakeReplica] = field(default_factory=dict)
    servers: dict[str, tuple[ResourceId, int]] = field(default_factory=dict)
    graphs: dict[ResourceId, tuple[AttachSpec, bool]] = field(default_factory=dict)
    slotted: dict[ResourceId, FakeGraph] = field(default_factory=dict)
    sessions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    hung: set[ResourceId] = field(default_factory=set)
    snapshots: dict[ResourceId, dict[ResourceId, FakeSnapshot]] = field(default_factory=dict)
    fail_before: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    fail_after: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: list[tuple[str, str]] = field(default_factory=list)
    looked_at: int = 0
    boots: int = 1

    def reboot(self) -> None:
        """The machine starts again: nothing runs, nothing is mounted, disks are as they were."""
        self.pools.clear()
        self.servers.clear()
        self.graphs.clear()
        self.slotted.clear()
        self.hung.clear()
        self.boots += 1


MACHINES: dict[tuple[Path, str], FakeMachine] = defaultdict(FakeMachine)
"""By the state folder of the engine, which a test makes for itself alone, and the node."""


def export_name(machine: FakeMachine, socket: str) -> str:
    """The name that what serves there now was started with."""
    volume, epoch = machine.servers[socket]
    return f"{volume}.e{epoch}.{machine.sessions[socket]}"


def serving(socket: str, export: str) -> FakeReplica | None:
    """The replica that is served at that socket under that export name, on any machine."""
    for machine in MACHINES.values():
        if socket in machine.servers and export == export_name(machine, socket):
            return machine.replicas.get(machine.servers[socket][0])
    return None


def is_hung(socket: str) -> bool:
    """Whether what serves there answers nothing."""
    return any(
        machine.servers[socket][0] in machine.hung
        for machine in MACHINES.values()
        if socket in machine.servers
    )
