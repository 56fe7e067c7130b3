"""A disk's path: fio through an attached volume (one replica, its server, the storage daemon, the
unix socket that a guest would use) over fio on the very same kind of file, in turn.

Both lie in the same pool (XFS on an image, page cache on) and are written full before. Each
figure `r1_local.<job>_ratio` is the median over the rounds of path over file. What the two
processes and their two sockets cost is most where one request waits for the other (`qd1`), and
least where many are on their way.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.cluster import attached_target
from bench.fio import FILL, JOBS, Cells, Rounds, Target, need_fio, run_fio
from bench.measure import Results, say
from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.engine import AttachSpec, PoolOnNode, ReplicaSpec
from trivet.contracts.storage.pool import PoolMember
from trivet.plugins.storage.engine import QemuBlockEngine

POOL, VOLUME = ResourceId("pool-0123456789abcdef"), ResourceId("volume-0123456789abcdef")
POOL_GIB = 4
EPOCH = 1


def run(arguments: Sequence[str]) -> Results:
    """Measure all jobs."""
    parser = argparse.ArgumentParser(prog="trivet bench disk")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.75)
    parser.add_argument("--size-mib", type=int, default=512)
    given = parser.parse_args(arguments)
    need_fio()
    with tempfile.TemporaryDirectory(prefix="tvb") as folder:
        return asyncio.run(_measured(Path(folder), given.size_mib, given.rounds, given.seconds))


async def _measured(folder: Path, size_mib: int, rounds: int, seconds: float) -> Results:
    """In a pool of its own, which is gone afterwards."""
    for name in ("s", "r"):
        (folder / name).mkdir()
    engine = QemuBlockEngine(DriverContext("n1", folder / "s", folder / "r"), NoConfig())
    await engine.open()
    member = PoolMember(node="n1", file_gib=POOL_GIB)
    pool = PoolOnNode(id=POOL, name="bench", member=member)
    raw = folder / "s" / "pools" / POOL / "raw"
    try:
        await engine.open_pool(pool)
        targets = {
            "path": await _attached(engine, size_mib * MIB, folder),
            "file": Target(("--ioengine=io_uring", f"--filename={raw}")),
        }
        say("writing both full")
        for target in targets.values():
            await asyncio.to_thread(run_fio, FILL, target, size_mib, None)
        cells = Cells()
        await asyncio.to_thread(
            cells.measure, JOBS, targets, size_mib, Rounds(rounds, seconds, (raw.parent,))
        )
    finally:
        raw.unlink(missing_ok=True)
        await engine.detach(VOLUME)
        await engine.end_serving(VOLUME, EPOCH + 1)
        await engine.remove(VOLUME)
        await engine.close_pool(POOL, destroy=True)
        await engine.close()
    ratios = cells.ratios("path", "file")
    return Results(
        {f"r1_local.{name}_ratio": ratio for name, ratio in ratios.items()}, cells.raw("file")
    )


async def _attached(engine: QemuBlockEngine, size_bytes: int, folder: Path) -> Target:
    """A new volume, attached."""
    spec = ReplicaSpec(volume=VOLUME, pool=POOL, size_bytes=size_bytes, generation=1)
    await engine.create(spec)
    served = await engine.serve(VOLUME, EPOCH)
    there = await engine.attach(
        AttachSpec(volume=VOLUME, epoch=EPOCH, size_bytes=size_bytes, replicas=(served,))
    )
    return attached_target(there, {"n1": folder})
