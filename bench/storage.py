"""Replicated volumes: what more replicas cost, and what a rebuild costs.

Each cell `<set-up>.<job>_ratio` is the median over the rounds of fio through that set-up over fio
through a volume of one replica, in turn: `r2_local` and `r3` have a replica on the guest's node,
`r2_remote` has both on others. The nodes are engines of one machine; between them is the loopback.

With `--peers` the same jobs also run on Gluster (replica 3) and Ceph (size 3), in the same rounds,
on the same pools' disks: `gluster.<job>` and `ceph.<job>` are the volume of three replicas over
theirs. Their Debian packages are installed where they are not; what runs and is stored is gone
afterwards. fio stands for the guest's QEMU: it uses their client libraries in its own process,
as QEMU would, and ours over the socket that QEMU would be given. Theirs acknowledge a write when
replicas have it, as ours do.

`rebuild.bytes_over_dirty`: what the server of a replica that was away wrote while it was brought
back, over what had changed meanwhile. `rebuild.rate_ratio`: bytes a second of a whole copy over
those of a plain copy between the two pools. `rebuild.p99_ratio`: the 99th percentile of a guest's
write while a copy runs that is held to `--speed-mib`, over that without.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.ceph import Ceph
from bench.cluster import N1, N2, N3, Cluster, wait_for_copy, written_bytes
from bench.fio import FILL, JOBS, Cells, Job, Rounds, Target, latency, need_fio, run_fio
from bench.gluster import Gluster
from bench.measure import Results, median, say
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.volume import Missing

SET_UPS = {"r1": (N1,), "r2_local": (N1, N2), "r2_remote": (N2, N3), "r3": (N1, N2, N3)}
VOLUMES = {name: ResourceId(f"volume-{n:016x}") for n, name in enumerate(SET_UPS)}
POOL_GIB = 6
PEERS: Mapping[str, type[Gluster] | type[Ceph]] = {"gluster": Gluster, "ceph": Ceph}
FOREGROUND = Job("foreground", ("--rw=randwrite", "--bs=4k", "--iodepth=1"))
DIRTY = Job("dirty", ("--rw=randwrite", "--bs=64k", "--iodepth=4"))


def run(arguments: Sequence[str]) -> Results:
    """Measure all."""
    parser = argparse.ArgumentParser(prog="trivet bench storage")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.75)
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--speed-mib", type=int, default=32)
    parser.add_argument("--peers", nargs="?", const="gluster,ceph", default="", metavar="NAMES")
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS))
    parser.add_argument("--without-rebuild", action="store_true")
    given = parser.parse_args(arguments)
    need_fio()
    with tempfile.TemporaryDirectory(prefix="tvb") as folder:
        return asyncio.run(_measured(Path(folder), given))


async def _measured(folder: Path, given: argparse.Namespace) -> Results:
    jobs = [job for job in JOBS if job.name in given.jobs.split(",")]
    cluster, cells = Cluster(folder, POOL_GIB), Cells()
    how = Rounds(given.rounds, given.seconds, cluster.disks())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cluster.end)
        await cluster.start()
        targets: dict[str, Target] = {}
        for name, nodes in SET_UPS.items():
            made = await cluster.make(VOLUMES[name], given.size_mib * MIB, *nodes)
            targets[name] = cluster.target(made)
        peers = [name for name in given.peers.split(",") if name]
        for name in peers:
            say(f"starting {name}")
            (folder / name).mkdir()
            peer = PEERS[name](folder / name, cluster.disks(), given.size_mib)
            targets[name] = await asyncio.to_thread(stack.enter_context, peer.running())
        for name, target in targets.items():
            say(f"writing {name} full")
            await asyncio.to_thread(run_fio, FILL, target, given.size_mib, None)
        await asyncio.to_thread(cells.measure, jobs, targets, given.size_mib, how)
        figures = {
            f"{name}.{job}_ratio": ratio
            for name in SET_UPS
            if name != "r1"
            for job, ratio in cells.ratios(name, "r1").items()
        }
        for name in peers:
            figures |= {f"{name}.{job}": ratio for job, ratio in cells.ratios("r3", name).items()}
        if not given.without_rebuild:
            say("rebuild")
            figures |= await _rebuild(cluster, targets["r2_local"], given)
        return Results(figures, cells.raw("r1"))
    raise AssertionError("the stack passes errors on")


async def _rebuild(cluster: Cluster, where: Target, given: argparse.Namespace) -> dict[str, float]:
    """With the volume of two replicas, the second of which is away again and again."""
    engine, volume = cluster.engines[N1], VOLUMES["r2_local"]
    figures = {}

    await engine.checkpoint(volume)
    await engine.drop_member(volume, N2)
    await asyncio.to_thread(run_fio, DIRTY, where, given.size_mib // 4, None)
    await engine.admit(volume, await cluster.serve(volume, N2))
    (there,) = await engine.attached(volume)
    before = written_bytes(cluster.servers(N2))
    await engine.copy(volume, N2, Missing.CHANGES)
    await wait_for_copy(engine, volume)
    copied = written_bytes(cluster.servers(N2)) - before
    figures["rebuild.bytes_over_dirty"] = copied / there.changed_bytes
    await engine.drop_member(volume, N2)

    rates: dict[str, list[float]] = {"copy": [], "raw": []}
    for _ in range(given.rounds):
        rates["raw"].append(await asyncio.to_thread(_plain_copy, cluster, volume))
        await engine.admit(volume, await cluster.serve(volume, N2))
        began = time.monotonic()
        await engine.copy(volume, N2, Missing.ALL)
        await wait_for_copy(engine, volume)
        await engine.checkpoint(volume, forget=False)
        rates["copy"].append(given.size_mib * MIB / (time.monotonic() - began))
        await engine.drop_member(volume, N2)
    pairs = zip(rates["copy"], rates["raw"], strict=True)
    figures["rebuild.rate_ratio"] = median([ours / raw for ours, raw in pairs])

    ratios = []
    for _ in range(given.rounds):
        await engine.admit(volume, await cluster.serve(volume, N2))
        alone = await asyncio.to_thread(_p99, where, given)
        speed = given.speed_mib * MIB
        await engine.copy(volume, N2, Missing.ALL, bytes_per_s=speed)
        ratios.append(await asyncio.to_thread(_p99, where, given) / alone)
        await engine.drop_member(volume, N2)
    figures["rebuild.p99_ratio"] = median(ratios)
    return figures


def _p99(where: Target, given: argparse.Namespace) -> float:
    return latency(FOREGROUND, where, given.size_mib, given.seconds)["99.000000"]


def _plain_copy(cluster: Cluster, volume: ResourceId) -> float:
    """Bytes a second, until they are on the other pool's disk."""
    source = cluster.replica(volume, N1)
    copy = cluster.replica(volume, N2).with_suffix(".copy")
    began = time.monotonic()
    try:
        shutil.copyfile(source, copy)
        with copy.open("rb+") as file:
            os.fsync(file.fileno())
        return source.stat().st_size / (time.monotonic() - began)
    finally:
        copy.unlink(missing_ok=True)
