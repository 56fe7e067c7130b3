"""What a node of the fake volume engine has on disk and in its process table.

It lies in a `FakeMachine`, found by the driver's state folder, so that it outlives the driver as
replicas, servers and graphs do.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachSpec, PoolOnNode, ReplicaSpec

BLOCK = 4096


@dataclass
class FakeReplica:
    """A replica's record and its written blocks."""

    spec: ReplicaSpec
    size_bytes: int
    generation: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    epoch: int = 0
    floor: int = 0
    complete: bool = False
    disk: str = ""

    def used_bytes(self) -> int:
        """What it takes in its pool."""
        return len(self.blocks) * BLOCK if self.spec.thin else self.size_bytes


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
class FakeMachine:
    """What one node keeps: it outlives the engine. `fail_before` and `fail_after` count how
    many more calls of an operation fail, before or after they had their effect; `looked_at` how
    many replicas and graphs were looked at in all."""

    pools: dict[ResourceId, PoolOnNode] = field(default_factory=dict)
    made: dict[ResourceId, int] = field(default_factory=dict)
    replicas: dict[ResourceId, FakeReplica] = field(default_factory=dict)
    servers: dict[str, tuple[ResourceId, int]] = field(default_factory=dict)
    graphs: dict[ResourceId, tuple[AttachSpec, bool]] = field(default_factory=dict)
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
        self.boots += 1


MACHINES: dict[tuple[Path, str], FakeMachine] = defaultdict(FakeMachine)
"""By the state folder of the engine, which a test makes for itself alone, and the node."""


def serving(socket: str, export: str) -> FakeReplica | None:
    """The replica that is served at that socket under that export name, on any machine."""
    for machine in MACHINES.values():
        if socket in machine.servers:
            volume, epoch = machine.servers[socket]
            if export == f"{volume}.e{epoch}":
                return machine.replicas.get(volume)
    return None
