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

from bench.fio import FILL, JOBS, fio, need_fio
from bench.measure import Results, median, say
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--size-mib", type=int, default=512)
    given = parser.parse_args(arguments)
    need_fio()
    with tempfile.TemporaryDirectory(prefix="tvb") as folder:
        return asyncio.run(_measured(Path(folder), given.rounds, given.seconds, given.size_mib))


async def _measured(folder: Path, rounds: int, seconds: float, size_mib: int) -> Results:
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
        path = await _attached(engine, size_mib * MIB)
        say("writing both full")
        targets = {"path": path, "file": ("--ioengine=io_uring", f"--filename={raw}")}
        for target in targets.values():
            await asyncio.to_thread(fio, FILL, target, size_mib, None)
        return await asyncio.to_thread(_rounds, targets, rounds, seconds, size_mib)
    finally:
        raw.unlink(missing_ok=True)
        await engine.detach(VOLUME)
        await engine.end_serving(VOLUME, EPOCH + 1)
        await engine.remove(VOLUME)
        await engine.close_pool(POOL, destroy=True)
        await engine.close()


async def _attached(engine: QemuBlockEngine, size_bytes: int) -> tuple[str, ...]:
    """fio's words for a new volume, attached."""
    spec = ReplicaSpec(volume=VOLUME, pool=POOL, size_bytes=size_bytes, generation=1)
    await engine.create(spec)
    served = await engine.serve(VOLUME, EPOCH)
    there = await engine.attach(
        AttachSpec(volume=VOLUME, epoch=EPOCH, size_bytes=size_bytes, replicas=(served,))
    )
    return ("--ioengine=nbd", f"--uri=nbd+unix:///{there.export}?socket={there.socket}")


def _rounds(
    targets: dict[str, tuple[str, ...]], rounds: int, seconds: float, size_mib: int
) -> Results:
    raw: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        for job in JOBS:
            say(f"round {number + 1} of {rounds}: {job.name}")
            for name, target in targets.items():
                measured = fio(job, target, size_mib, seconds)
                raw.setdefault(job.name, {}).setdefault(name, []).append(measured)
    ratios = {
        name: median([p / f for p, f in zip(found["path"], found["file"], strict=True)])
        for name, found in raw.items()
    }
    return Results({f"r1_local.{n}_ratio": ratio for n, ratio in ratios.items()}, raw)
