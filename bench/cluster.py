"""Three volume engines of one machine as the nodes: pools on images, addresses of the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bench.fio import Target
from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    PoolOnNode,
    ReplicaSpec,
    ServedReplica,
)
from trivet.contracts.storage.pool import PoolMember
from trivet.plugins.storage import nbdkit, qsd
from trivet.plugins.storage.engine import QemuBlockEngine
from trivet.plugins.storage.node_process import Daemon, daemons

POOL = ResourceId("pool-0123456789abcdef")
NODES = N1, N2, N3 = ("n1", "n2", "n3")
EPOCH = 1


class Cluster:
    """The nodes; volumes are attached on the first."""

    def __init__(self, folder: Path, pool_gib: int) -> None:
        self._folder = folder
        self._pool_gib = pool_gib
        self.engines: dict[str, QemuBlockEngine] = {}

    async def start(self) -> None:
        """Open the engines, and make their pools."""
        for node in NODES:
            state, run = self._folder / node / "s", self._folder / node / "r"
            for folder in (state, run):
                folder.mkdir(parents=True)
            engine = QemuBlockEngine(DriverContext(node, state, run), NoConfig())
            await engine.open()
            self.engines[node] = engine
            member = PoolMember(node=node, file_gib=self._pool_gib)
            await engine.open_pool(PoolOnNode(id=POOL, name="bench", member=member))

    async def end(self) -> None:
        """Take all of it away."""
        for engine in self.engines.values():
            for attached in await engine.attached():
                await engine.detach(attached.volume)
        for engine in self.engines.values():
            for record in await engine.replicas():
                await engine.end_serving(record.volume, EPOCH + 1)
                await engine.remove(record.volume)
            await engine.close_pool(POOL, destroy=True)
            await engine.close()

    async def serve(self, volume: ResourceId, node: str) -> ServedReplica:
        """A fresh server of a replica."""
        there = f"127.0.0.{NODES.index(node) + 1}"
        return await self.engines[node].serve(volume, EPOCH, address=there, fresh=True)

    async def make(self, volume: ResourceId, size_bytes: int, *nodes: str) -> AttachedVolume:
        """A new volume with replicas on these nodes, attached on the first node; one of one
        replica without slots, others with one to spare, as volumes have it."""
        spec = ReplicaSpec(volume=volume, pool=POOL, size_bytes=size_bytes, generation=1)
        for node in nodes:
            await self.engines[node].create(spec)
        served = tuple([await self.serve(volume, node) for node in nodes])
        slots = 0 if len(nodes) == 1 else len(nodes) + 1
        return await self.engines[N1].attach(
            AttachSpec(
                volume=volume, epoch=EPOCH, size_bytes=size_bytes, replicas=served, slots=slots
            )
        )

    def target(self, attached: AttachedVolume) -> Target:
        """fio's words for an attached volume."""
        return attached_target(attached, {node: self._folder / node for node in NODES})

    def disks(self) -> tuple[Path, ...]:
        """Where each node's pool is mounted."""
        return tuple(self._folder / node / "s" / "pools" / POOL for node in NODES)

    def servers(self, node: str) -> list[Daemon]:
        """The servers of a node's replicas."""
        return list(daemons(nbdkit.PROGRAM, self._folder / node))

    def replica(self, volume: ResourceId, node: str) -> Path:
        """The file of a replica."""
        return self._folder / node / "s" / "pools" / POOL / "replicas" / f"{volume}.raw"


def attached_target(attached: AttachedVolume, folders: Mapping[str, Path]) -> Target:
    """An attached volume as fio has it: the socket that a guest would be given. Behind it are the
    storage daemon and the servers of the replicas, by the nodes' folders."""
    behind = {}
    for node, folder in folders.items():
        for program in (qsd.PROGRAM, nbdkit.PROGRAM):
            found = [d.pid for d in daemons(program, folder) if _is_of(d, attached.volume)]
            if found:
                behind[f"{program} {node}"] = found
    uri = f"nbd+unix:///{attached.export}?socket={attached.socket}"
    return Target(("--ioengine=nbd", f"--uri={uri}"), behind=behind)


def _is_of(daemon: Daemon, volume: ResourceId) -> bool:
    return any(volume in argument for argument in daemon.argv)


def written_bytes(servers: list[Daemon]) -> int:
    """What these processes have written into files and sockets so far."""
    total = 0
    for server in servers:
        for line in Path(f"/proc/{server.pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                total += int(line.split()[1])
    return total


async def wait_for_copy(engine: QemuBlockEngine, volume: ResourceId) -> None:
    """Until the one copy of a volume has ended well."""
    while True:
        (copy,) = await engine.copies(volume)
        if copy.state != "running":
            break
        await asyncio.sleep(0.005)
    if copy.state != "done":
        raise RuntimeError(copy.error)
