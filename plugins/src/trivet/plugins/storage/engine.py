"""The volume engine on QEMU's block layer: nbdkit serves replicas, a storage daemon attaches.

This module keeps the order that makes it safe: an epoch is recorded beside the replica before
anything is served under it, older servers are ended before a newer one starts, an older graph
before a newer one. What runs outlives this process and is found again in the process table;
what is stored is found by the records beside the replicas. It decides nothing beyond its node.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

from trivet.contracts.driver import DriverContext, NoConfig, Probe
from trivet.contracts.errors import (
    CONFLICT,
    DRIVER_FAILED,
    IN_USE,
    INVALID,
    NOT_FOUND,
    Fatal,
    Refused,
    Retry,
)
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.codes import NO_SPACE, SHRINK
from trivet.contracts.storage.engine import (
    PoolOnNode,
    ReplicaRecord,
    ReplicaSpec,
    ServedReplica,
    SnapshotRecord,
    VolumeEngine,
)
from trivet.contracts.storage.pool import PoolUsage
from trivet.contracts.storage.replication import Digest, Extent
from trivet.plugins.storage import nbdkit, qsd
from trivet.plugins.storage.attached_graphs import AttachedGraphs
from trivet.plugins.storage.digest import data_extents, hash_blocks, is_blank, read_when_idle
from trivet.plugins.storage.failures import Failures
from trivet.plugins.storage.file_pool import (
    OpenPool,
    Root,
    close_file_pool,
    is_whole,
    open_file_pool,
)
from trivet.plugins.storage.node_process import attempt, let_run
from trivet.plugins.storage.replica_file import (
    Sidecar,
    data_path,
    grow_data,
    make_data,
    read_sidecars,
    remove_replica,
    replace_data,
    write_sidecar,
)
from trivet.plugins.storage.snapshot_file import (
    SnapshotSidecar,
    cut,
    read_snapshots,
    remove_snapshot,
    snapshot_data,
    write_snapshot,
)
from trivet.plugins.storage.snapshot_parts import SnapshotParts
from trivet.plugins.storage.sockets import Sockets

PROGRAMS = ("nbdkit", "qemu-storage-daemon", "mkfs.xfs", "mount", "umount", "blkid", "wipefs")
COPIERS = 4
"""Threads for what blocks on disks, so that copying never holds up commands."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
SOCKET_PATH_MAX = 107
"""What a unix socket's path may have, in bytes, on Linux."""


class QemuBlockEngine(AttachedGraphs, SnapshotParts):
    """Keeps replicas as files, serves them with nbdkit, attaches volumes with QEMU."""

    name: ClassVar[str] = "qemu-block"
    Config: ClassVar[type[Model]] = NoConfig

    def __init__(self, context: DriverContext, config: Model) -> None:
        self._context = context
        self._servers = Sockets(nbdkit.PROGRAM, context.run_dir / "r")
        self._graphs = Sockets(qsd.PROGRAM, context.run_dir / "a")
        self._offers = Sockets(nbdkit.PROGRAM, context.run_dir / "o")
        self._pools: dict[ResourceId, OpenPool] = {}
        self._asked: dict[ResourceId, PoolOnNode] = {}
        self._known: dict[ResourceId, tuple[Root, Sidecar]] = {}
        self._taken: dict[ResourceId, dict[ResourceId, tuple[Root, SnapshotSidecar]]] = {}
        self._locks: dict[ResourceId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._boot = BOOT_ID.read_text().strip()
        self._failures = Failures(self.attached)
        self._stop = threading.Event()
        self._copiers = ThreadPoolExecutor(COPIERS, thread_name_prefix="replica")
        self._readers = ThreadPoolExecutor(1, "digest", initializer=read_when_idle)

    @classmethod
    async def probe(cls) -> Probe:
        """Whether all programs are there, and nbdkit has what names exports by epoch."""
        missing = [p for p in PROGRAMS if shutil.which(p) is None]
        if missing:
            return Probe(usable=False, reason=f"not installed: {', '.join(missing)}")
        tried = await attempt("nbdkit", "--filter=exportname", "file", "--dump-plugin")
        if tried.code != 0:
            return Probe(usable=False, reason=f"nbdkit lacks its file plugin: {tried.stderr}")
        return Probe(usable=True, reason="nbdkit and QEMU's storage daemon are here", score=50)

    async def open(self) -> None:
        """Make the folders of the sockets, and find what runs."""
        for sockets in (self._servers, self._graphs, self._offers):
            sockets.folder.mkdir(mode=0o700, exist_ok=True)
            await asyncio.to_thread(sockets.scan)
        for server in self._servers.all():
            if server.daemon is not None:  # a snapshot that was cut may have left it stopped
                let_run(server.daemon)
            self._failures.watch(server)
        for offer in self._offers.all():  # its client asks again
            await nbdkit.end_replica_server(self._offers, offer)
        for graph in self._graphs.all():
            self._failures.listen(graph)
        longest = f"{self._servers.folder}/volume-0123456789abcdef.e1000000000.sock"
        if len(longest.encode()) > SOCKET_PATH_MAX:
            room = SOCKET_PATH_MAX - len(longest) + len(str(self._context.run_dir))
            raise Refused(
                INVALID,
                f"{self._context.run_dir} is too long for unix sockets",
                hint=f"choose a run_dir so that this path has at most {room} bytes",
            )

    async def close(self) -> None:
        """Stop copies under way; servers, graphs and mounts stay."""
        self._stop.set()
        await self._failures.close()
        for threads in (self._copiers, self._readers):
            await asyncio.to_thread(threads.shutdown)

    # --- pools -----------------------------------------------------------------------------

    async def open_pool(self, pool: PoolOnNode) -> PoolUsage:
        """Make the pool usable here, as large as it is asked to be; tell its usage. What was
        mounted and is not any more is mounted again, or the pool is told not to be open."""
        async with self._locks[pool.id]:
            known = self._pools.get(pool.id)
            same = self._asked.get(pool.id) == pool
            if known is None or not same or not is_whole(known) or known.lacks(pool):
                opened = await open_file_pool(self._context, pool)
                self._forget_roots(known, opened)
                for root in opened.roots:
                    for sidecar in await asyncio.to_thread(read_sidecars, root.replicas):
                        known_one = self._known.get(sidecar.volume)
                        if known_one is None or known_one[1].made_ns <= sidecar.made_ns:
                            self._known[sidecar.volume] = (root, sidecar)
                    for taken in await asyncio.to_thread(read_snapshots, root.snapshots):
                        of_one = self._taken.setdefault(taken.snapshot, {})
                        of_one[taken.volume] = (root, taken)
                self._pools[pool.id], self._asked[pool.id] = opened, pool
            return self._pools[pool.id].usage(self._context.node)

    async def close_pool(self, pool: ResourceId, *, destroy: bool = False) -> None:
        """Stop using the pool. Raises `Refused(IN_USE)` while a replica of it is served."""
        async with self._locks[pool]:
            opened = self._pools.get(pool)
            if opened is None:
                return
            mine = {v for v, (root, _) in self._known.items() if root in opened.roots}
            kept = [s for s, vs in self._taken.items() if _lies_in(vs.values(), opened)]
            if destroy and (mine or kept):
                have = f"{len(mine)} replicas, {len(kept)} snapshots"
                raise Refused(IN_USE, f"pool {pool} still has {have}")
            served = [v for v in sorted(mine) if self._epoch_served(v) is not None]
            if served:
                raise Refused(IN_USE, f"pool {pool} still serves {', '.join(served)}")
            await close_file_pool(opened, destroy=destroy)
            for volume in mine:
                del self._known[volume]
            for snapshot in kept:
                del self._taken[snapshot]
            del self._pools[pool]

    # --- replicas --------------------------------------------------------------------------

    async def create(self, replica: ReplicaSpec) -> ReplicaRecord:
        """Make a replica, with its content if it has a source."""
        async with self._locks[replica.volume]:
            known = self._known.get(replica.volume)
            if known is not None and known[1].complete:
                return self._existing(replica, *known)
            beside, source = self._source(replica)
            root = known[0] if known else self._choose_root(replica, beside)
            sidecar = Sidecar(
                volume=replica.volume,
                pool=replica.pool,
                size_bytes=replica.size_bytes,
                generation=replica.generation,
                thin=replica.thin,
                made_ns=time.time_ns(),
            )
            await self._write(root, sidecar)
            try:
                await self._thread(
                    lambda: make_data(
                        root.replicas,
                        replica.volume,
                        replica.size_bytes,
                        thin=replica.thin,
                        source=source,
                        linked=replica.linked,
                        stop=self._stop,
                    )
                )
            except Retry:
                await asyncio.to_thread(remove_replica, root.replicas, replica.volume)
                del self._known[replica.volume]
                raise
            await self._write(root, sidecar.model_copy(update={"complete": True}))
            return self._record(replica.volume)

    async def grow(self, volume: ResourceId, size_bytes: int, generation: int) -> ReplicaRecord:
        """Make a replica larger; a graph that is attached sees it at its next attach."""
        async with self._locks[volume]:
            root, sidecar = self._complete(volume)
            if size_bytes < sidecar.size_bytes:
                raise Refused(SHRINK, f"{volume} has {sidecar.size_bytes} bytes already")
            await self._thread(
                lambda: grow_data(root.replicas, volume, size_bytes, thin=sidecar.thin)
            )
            changes = {"size_bytes": size_bytes, "generation": generation}
            await self._write(root, sidecar.model_copy(update=changes))
            return self._record(volume)

    async def remove(self, volume: ResourceId) -> None:
        """Remove a replica that is not served, and its record."""
        async with self._locks[volume]:
            if volume not in self._known:
                return
            if self._epoch_served(volume) is not None:
                raise Refused(IN_USE, f"the replica of {volume} is being served")
            root, _ = self._known[volume]
            await asyncio.to_thread(remove_replica, root.replicas, volume)
            del self._known[volume]

    async def replicas(self, volume: ResourceId | None = None) -> tuple[ReplicaRecord, ...]:
        """All replicas in the open pools, or that of one volume."""
        wanted = sorted(self._known) if volume is None else [volume] * (volume in self._known)
        return await asyncio.to_thread(lambda: tuple(self._record(v) for v in wanted))

    # --- serving ---------------------------------------------------------------------------

    async def serve(
        self, volume: ResourceId, epoch: int, *, address: str | None = None, fresh: bool = False
    ) -> ServedReplica:
        """Serve a replica under `epoch`, to other nodes too if `address` is given; whatever
        served it under an older one (with `fresh`: before) is over."""
        async with self._locks[volume]:
            root, sidecar = self._complete(volume)
            lowest = max(sidecar.epoch, sidecar.floor)
            if epoch < lowest:
                raise Refused(CONFLICT, f"epoch {epoch} of {volume} is over (now {lowest})")
            await self._write(root, sidecar.model_copy(update={"epoch": epoch, "floor": epoch}))
            here, remote = None, None
            mine = self._servers.of(volume)
            # Where one died both begin anew, under a name that nobody waits for.
            fresh = fresh or any(s.epoch == epoch and s.daemon is None for s in mine)
            export = nbdkit.new_export(volume, epoch)
            for server in mine:
                if fresh or server.epoch != epoch or server.daemon is None:
                    await nbdkit.end_replica_server(self._servers, server)
                    continue
                export = nbdkit.export_of(server.daemon)
                if server.port is None:
                    here = server
                else:
                    remote = server
            data = data_path(root.replicas, volume)
            # Nobody can have written since, where nobody could before.
            blank = here is None and remote is None and await asyncio.to_thread(is_blank, data)
            if here is None:
                here = await nbdkit.start_replica_server(self._servers, volume, epoch, data, export)
            if remote is None and address is not None:
                remote = await nbdkit.start_remote_server(
                    self._servers, volume, epoch, data, export, address
                )
            self._failures.watch(here)
            there = nbdkit.served(here, export, remote if address else None, address)
            about = {"node": self._context.node, "boot": self._boot, "blank": blank}
            return there.model_copy(update={**about, "size_bytes": sidecar.size_bytes})

    async def end_serving(self, volume: ResourceId, below_epoch: int) -> None:
        """End servers of epochs below `below_epoch`, which never come back."""
        async with self._locks[volume]:
            known = self._known.get(volume)
            if known is not None and known[1].floor < below_epoch:
                await self._write(known[0], known[1].model_copy(update={"floor": below_epoch}))
            for server in self._servers.of(volume):
                if server.epoch < below_epoch or server.daemon is None:
                    await nbdkit.end_replica_server(self._servers, server)

    async def digest(self, volume: ResourceId, extent: Extent, block_bytes: int) -> Digest:
        """Hash that part of this node's own replica."""
        root, sidecar = self._complete(volume)
        path = data_path(root.replicas, volume)
        begin, end = extent.offset, min(extent.offset + extent.length, sidecar.size_bytes)
        loop = asyncio.get_running_loop()
        hashes = await loop.run_in_executor(
            self._readers, hash_blocks, path, begin, end, block_bytes
        )
        return Digest(volume=volume, offset=begin, block_bytes=block_bytes, hashes=hashes)

    async def _data(self, volume: ResourceId, size_bytes: int) -> tuple[Extent, ...]:
        root, _ = self._complete(volume)
        path = data_path(root.replicas, volume)
        found = await asyncio.to_thread(data_extents, path, 0, size_bytes)
        return tuple(Extent(offset=begin, length=end - begin) for begin, end in found)

    # --- snapshots -------------------------------------------------------------------------

    async def take(
        self, snapshot: ResourceId, volumes: tuple[ResourceId, ...]
    ) -> tuple[SnapshotRecord, ...]:
        """Keep these volumes as they are at one point."""
        async with self._locks[snapshot]:
            known = self._taken.get(snapshot, {})
            if set(known) == set(volumes) and all(s.complete for _, s in known.values()):
                return await self.snapshots(snapshot)
            # One that was cut has parts of another point: it is begun anew.
            await self._drop(snapshot)
            parts = [self._begin_snapshot(snapshot, volume) for volume in volumes]
            self._taken[snapshot] = {sidecar.volume: (root, sidecar) for root, sidecar in parts}
            try:
                await self._thread(lambda: self._cut(parts))
            except BaseException:
                await self._drop(snapshot)
                raise
            done = [(r, s.model_copy(update={"complete": True})) for r, s in parts]
            for root, sidecar in done:
                await self._thread(partial(write_snapshot, root.snapshots, sidecar))
            self._taken[snapshot] = {sidecar.volume: (root, sidecar) for root, sidecar in done}
            return await self.snapshots(snapshot)

    async def snapshots(self, snapshot: ResourceId | None = None) -> tuple[SnapshotRecord, ...]:
        """All that is kept here, or of that one."""
        wanted = sorted(self._taken) if snapshot is None else [snapshot]
        parts = [p for s in wanted for _, p in sorted(self._taken.get(s, {}).items())]
        return await asyncio.to_thread(lambda: tuple(s.record(r.snapshots) for r, s in parts))

    async def drop(self, snapshot: ResourceId) -> None:
        """Remove a snapshot with all its volumes."""
        async with self._locks[snapshot]:
            await self._drop(snapshot)

    async def revert(
        self, volume: ResourceId, snapshot: ResourceId, generation: int
    ) -> ReplicaRecord:
        """Give a replica that is not served the content of a snapshot of it."""
        async with self._locks[volume]:
            root, sidecar = self._complete(volume)
            if self._epoch_served(volume) is not None:
                raise Refused(IN_USE, f"the replica of {volume} is being served")
            kept, _ = self._complete_snapshot(snapshot, volume)
            source = snapshot_data(kept.snapshots, snapshot, volume)
            await self._thread(
                lambda: replace_data(root.replicas, volume, source, thin=sidecar.thin)
            )
            await self._write(root, sidecar.model_copy(update={"generation": generation}))
            return self._record(volume)

    # --- inside ----------------------------------------------------------------------------

    def _forget_roots(self, before: OpenPool | None, after: OpenPool) -> None:
        """Forget what lies on disks that the pool is open without now: it is not seen."""
        gone = set(before.roots if before else ()) - set(after.roots)
        self._known = {v: known for v, known in self._known.items() if known[0] not in gone}
        for snapshot, parts in list(self._taken.items()):
            kept = {v: part for v, part in parts.items() if part[0] not in gone}
            self._taken[snapshot] = kept
            if not kept:
                del self._taken[snapshot]

    def _existing(self, spec: ReplicaSpec, root: Root, sidecar: Sidecar) -> ReplicaRecord:
        if (sidecar.pool, sidecar.size_bytes) != (spec.pool, spec.size_bytes):
            raise Refused(
                CONFLICT,
                f"there is a replica of {spec.volume} already, of {sidecar.size_bytes} bytes"
                f" in pool {sidecar.pool}",
            )
        return self._record(spec.volume)

    def _source(self, spec: ReplicaSpec) -> tuple[Root | None, Path | None]:
        """Where the source lies, and its bytes."""
        if spec.source is None:
            return None, None
        sidecar: Sidecar | SnapshotSidecar
        if spec.snapshot is None:
            root, sidecar = self._complete(spec.source)
            path = data_path(root.replicas, spec.source)
        else:
            root, sidecar = self._complete_snapshot(spec.snapshot, spec.source)
            path = snapshot_data(root.snapshots, spec.snapshot, spec.source)
        if sidecar.pool != spec.pool:
            raise Refused(INVALID, f"{spec.source} lies in another pool than {spec.volume}")
        if sidecar.size_bytes > spec.size_bytes:
            raise Refused(SHRINK, f"{spec.source} is larger than {spec.size_bytes} bytes")
        return root, path

    def _choose_root(self, spec: ReplicaSpec, source: Root | None) -> Root:
        """Beside the source, if it has one (only there blocks can be shared); else where there
        is most room."""
        pool = self._pools.get(spec.pool)
        if pool is None:
            raise Refused(NOT_FOUND, f"pool {spec.pool} is not open on {self._context.node}")
        if source is not None and spec.linked:
            return source
        if spec.disk:
            return pool.root(spec.disk)
        return max(pool.roots, key=lambda root: root.free_bytes())

    def _begin_snapshot(
        self, snapshot: ResourceId, volume: ResourceId
    ) -> tuple[Root, SnapshotSidecar]:
        root, replica = self._complete(volume)
        sidecar = SnapshotSidecar(
            snapshot=snapshot, volume=volume, pool=replica.pool, size_bytes=replica.size_bytes
        )
        return root, sidecar

    def _cut(self, parts: Sequence[tuple[Root, SnapshotSidecar]]) -> None:
        for root, sidecar in parts:
            write_snapshot(root.snapshots, sidecar)
        servers = [s.daemon for _, p in parts for s in self._servers.of(p.volume) if s.daemon]
        files = [
            (data_path(r.replicas, s.volume), snapshot_data(r.snapshots, s.snapshot, s.volume))
            for r, s in parts
        ]
        cut(files, servers)

    async def _drop(self, snapshot: ResourceId) -> None:
        for volume, (root, _) in list(self._taken.get(snapshot, {}).items()):
            await self._end_offers(snapshot, volume)
            await self._thread(partial(remove_snapshot, root.snapshots, snapshot, volume))
        self._taken.pop(snapshot, None)

    def _complete_snapshot(
        self, snapshot: ResourceId, volume: ResourceId
    ) -> tuple[Root, SnapshotSidecar]:
        known = self._taken.get(snapshot, {}).get(volume)
        if known is None or not known[1].complete:
            detail = f"there is no snapshot {snapshot} of {volume} on {self._context.node}"
            raise Refused(NOT_FOUND, detail)
        return known

    def _complete(self, volume: ResourceId) -> tuple[Root, Sidecar]:
        known = self._known.get(volume)
        if known is None or not known[1].complete:
            raise Refused(NOT_FOUND, f"there is no replica of {volume} on {self._context.node}")
        return known

    def _record(self, volume: ResourceId) -> ReplicaRecord:
        root, sidecar = self._known[volume]
        record = sidecar.record(root.replicas, self._epoch_served(volume))
        return record.model_copy(update={"disk": root.disk})

    def _epoch_served(self, volume: ResourceId) -> int | None:
        alive = [s.epoch for s in self._servers.of(volume) if s.daemon is not None]
        return max(alive, default=None)

    async def _write(self, root: Root, sidecar: Sidecar) -> None:
        await self._thread(lambda: write_sidecar(root.replicas, sidecar))
        self._known[sidecar.volume] = (root, sidecar)

    async def _thread(self, act: Callable[[], None]) -> None:
        """Do what blocks; a full file system is a `Retry`, other trouble of the OS `Fatal`."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._copiers, act)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Retry(NO_SPACE, f"the pool on {self._context.node} is full") from error
            raise Fatal(DRIVER_FAILED, f"{self.name}: {error}") from error


def _lies_in(parts: Iterable[tuple[Root, SnapshotSidecar]], pool: OpenPool) -> bool:
    return any(root in pool.roots for root, _ in parts)


@hookimpl
def trivet_volume_engines() -> list[type[VolumeEngine]]:
    """This module's driver."""
    return [QemuBlockEngine]
