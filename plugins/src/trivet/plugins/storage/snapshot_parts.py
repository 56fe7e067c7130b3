"""Parts of a snapshot that another node has cut, made alike here: of the engine on QEMU's layer.

A part begins as a clone of this node's replica. What differs from the part of the other node
(both are hashed) is read from there over NBD: a server of its own, read only, that ends when its
one client goes. A part that a killed service left incomplete is gone on with as it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, NOT_FOUND, Refused
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.engine import ServedReplica, SnapshotRecord
from trivet.contracts.storage.replication import Digest, Extent
from trivet.plugins.storage import nbdkit
from trivet.plugins.storage.digest import hash_blocks
from trivet.plugins.storage.file_pool import OpenPool, Root
from trivet.plugins.storage.nbd_client import NbdClient, nbd
from trivet.plugins.storage.replica_file import Sidecar, clone, copy, data_path, sync_folder
from trivet.plugins.storage.snapshot_file import (
    SnapshotSidecar,
    remove_snapshot,
    snapshot_data,
    write_snapshot,
)
from trivet.plugins.storage.sockets import Sockets

READ_BYTES = MIB
FILL_S = 600.0
"""The longest that one part of a copy may take."""


class SnapshotParts:
    """The part of the engine that makes parts of snapshots alike."""

    _context: DriverContext
    _offers: Sockets
    _locks: dict[ResourceId, asyncio.Lock]
    _pools: dict[ResourceId, OpenPool]
    _known: dict[ResourceId, tuple[Root, Sidecar]]
    _taken: dict[ResourceId, dict[ResourceId, tuple[Root, SnapshotSidecar]]]
    _readers: ThreadPoolExecutor

    async def _thread(self, act: Callable[[], None]) -> None:
        raise NotImplementedError

    async def begin_part(
        self, snapshot: ResourceId, volume: ResourceId, pool: ResourceId, size_bytes: int
    ) -> SnapshotRecord:
        """Have a part here: as this node's replica is now, or empty."""
        async with self._locks[snapshot]:
            known = self._taken.get(snapshot, {}).get(volume)
            if known is None or not _has_data(*known):
                opened = self._pools.get(pool)
                if opened is None:
                    raise Refused(NOT_FOUND, f"pool {pool} is not open on {self._context.node}")
                replica = self._known.get(volume)
                beside = replica if replica is not None and replica[1].complete else None
                root = beside[0] if beside else max(opened.roots, key=lambda r: r.free_bytes())
                sidecar = SnapshotSidecar(
                    snapshot=snapshot, volume=volume, pool=pool, size_bytes=size_bytes
                )
                source = data_path(root.replicas, volume) if beside else None
                await self._thread(lambda: _begin(root, sidecar, source))
                known = (root, sidecar)
                self._taken.setdefault(snapshot, {})[volume] = known
            root, sidecar = known
            return await asyncio.to_thread(sidecar.record, root.snapshots)

    async def digest_part(
        self, snapshot: ResourceId, volume: ResourceId, extent: Extent, block_bytes: int
    ) -> Digest:
        """Hash that part of what is kept here."""
        path, sidecar = self._part(snapshot, volume)
        begin, end = extent.offset, min(extent.offset + extent.length, sidecar.size_bytes)
        loop = asyncio.get_running_loop()
        hashes = await loop.run_in_executor(
            self._readers, hash_blocks, path, begin, end, block_bytes
        )
        return Digest(volume=volume, offset=begin, block_bytes=block_bytes, hashes=hashes)

    async def offer_part(
        self, snapshot: ResourceId, volume: ResourceId, address: str
    ) -> ServedReplica:
        """Serve a complete part to one other node, for reading."""
        path, sidecar = self._part(snapshot, volume)
        if not sidecar.complete:
            raise Refused(NOT_FOUND, f"{volume} in {snapshot} is not complete here")
        async with self._locks[snapshot]:
            name = ResourceId(f"{snapshot}.{volume}")
            for server in self._offers.of(name):
                if server.daemon is None:  # its client has gone
                    self._offers.forget(server)
            export = nbdkit.new_export(name, 0)
            server = await nbdkit.start_offer(self._offers, name, path, export, address)
            return ServedReplica(
                volume=volume,
                epoch=0,
                export=export,
                socket=str(server.path),
                host=address,
                port=server.port,
                node=self._context.node,
                size_bytes=sidecar.size_bytes,
            )

    async def fill_part(
        self,
        snapshot: ResourceId,
        volume: ResourceId,
        offered: ServedReplica,
        extents: tuple[Extent, ...],
        bytes_per_s: int = 0,
    ) -> None:
        """Copy those extents of what is offered into the part here."""
        path, sidecar = self._part(snapshot, volume)
        if sidecar.complete:
            raise Refused(CONFLICT, f"{volume} in {snapshot} is complete, and never changes")
        where = {"type": "inet", "host": str(offered.host), "port": str(offered.port)}
        async with nbd(where, offered.export, timeout_s=FILL_S) as client:
            for extent in extents:
                await self._fill(client, path, extent, bytes_per_s)

    async def _fill(self, client: NbdClient, path: Path, extent: Extent, bytes_per_s: int) -> None:
        end = extent.offset + extent.length
        for at in range(extent.offset, end, READ_BYTES):
            data = await client.read(at, min(READ_BYTES, end - at))
            await self._thread(partial(_write, path, data, at))
            if bytes_per_s:
                await asyncio.sleep(len(data) / bytes_per_s)

    async def complete_part(self, snapshot: ResourceId, volume: ResourceId) -> SnapshotRecord:
        """Have all of the part on disk, and record that it is complete."""
        async with self._locks[snapshot]:
            path, sidecar = self._part(snapshot, volume)
            root, _ = self._taken[snapshot][volume]
            if not sidecar.complete:
                done = sidecar.model_copy(update={"complete": True})
                await self._thread(lambda: _complete(root, done, path))
                self._taken[snapshot][volume] = (root, done)
            kept = self._taken[snapshot][volume][1]
            return await asyncio.to_thread(kept.record, root.snapshots)

    async def drop_part(self, snapshot: ResourceId, volume: ResourceId) -> None:
        """Remove one volume of a snapshot, and what serves it."""
        async with self._locks[snapshot]:
            await self._end_offers(snapshot, volume)
            known = self._taken.get(snapshot, {}).get(volume)
            if known is None:
                return
            root = known[0]
            await self._thread(partial(remove_snapshot, root.snapshots, snapshot, volume))
            del self._taken[snapshot][volume]
            if not self._taken[snapshot]:
                del self._taken[snapshot]

    async def _end_offers(self, snapshot: ResourceId, volume: ResourceId) -> None:
        for server in self._offers.of(ResourceId(f"{snapshot}.{volume}")):
            await nbdkit.end_replica_server(self._offers, server)

    def _part(self, snapshot: ResourceId, volume: ResourceId) -> tuple[Path, SnapshotSidecar]:
        known = self._taken.get(snapshot, {}).get(volume)
        if known is None:
            where = self._context.node
            raise Refused(NOT_FOUND, f"nothing of {volume} in {snapshot} is on {where}")
        root, sidecar = known
        return snapshot_data(root.snapshots, snapshot, volume), sidecar


def _has_data(root: Root, sidecar: SnapshotSidecar) -> bool:
    return snapshot_data(root.snapshots, sidecar.snapshot, sidecar.volume).exists()


def _begin(root: Root, sidecar: SnapshotSidecar, source: Path | None) -> None:
    """The record first: what is cut here is found by it, and begun anew."""
    write_snapshot(root.snapshots, sidecar)
    path = snapshot_data(root.snapshots, sidecar.snapshot, sidecar.volume)
    path.unlink(missing_ok=True)
    try:
        with path.open("xb") as target:
            if source is not None:
                with source.open("rb") as file:
                    if not clone(file.fileno(), target.fileno()):
                        copy(file.fileno(), target.fileno(), lambda: False)
            os.ftruncate(target.fileno(), sidecar.size_bytes)
    except BaseException:
        remove_snapshot(root.snapshots, sidecar.snapshot, sidecar.volume)
        raise
    sync_folder(root.snapshots)


def _write(path: Path, data: bytes, offset: int) -> None:
    with path.open("rb+") as file:
        written = 0
        while written < len(data):
            written += os.pwrite(file.fileno(), data[written:], offset + written)


def _complete(root: Root, sidecar: SnapshotSidecar, path: Path) -> None:
    with path.open("rb+") as file:
        os.ftruncate(file.fileno(), sidecar.size_bytes)
        os.fsync(file.fileno())
    write_snapshot(root.snapshots, sidecar)
