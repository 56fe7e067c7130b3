"""Very many volumes of two replicas on three real nodes (a lab): operations, memory, reaction.

Operations go through the API, some at a time: a create ends when the volume is ready, an edit
(of a bound that a volume has) when it is settled, a delete when the volume is gone. `kb_a_volume`
is what all services and the bus grow by a volume, on all nodes together; `attached_mb` the memory
of what runs for one that is attached: its graph, and its replicas' servers.

Then a node's power is cut. `told_s`: until each volume with a replica there says that it is not
as redundant as asked. `recorded_s`: until each attached one has recorded that its replica there
misses writes, which is when a guest that writes goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.idle import pss_mb
from bench.measure import Results, ms, percentile, say
from trivet.client import Client
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.volume import VOLUME, ReplicaState, Volume
from trivet.runtime import call
from trivet.runtime.nats_bus import NatsBus
from trivet.testing.lab.cluster import Lab

POOL, POOL_GIB = "many", 400
HOLDER_NODE, LOST_NODE = "n1", "n3"
WAIT_S = 60.0
REACT_S = 120.0
LOOK_S = 0.25
SETTLE_S = 10.0
CONTROL = ("python", "nats-server")
DATA = ("qemu-storage-da", "nbdkit")
Act = Callable[[Client, str], object]


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench volumes", description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--attached", type=int, default=20)
    parser.add_argument("--wide", type=int, default=20)
    parser.add_argument("--lab", type=Path, help="one that is up; it stays, a node of it off")
    given = parser.parse_args(arguments)
    with _lab(given.lab) as lab:
        return _measured(lab, given.count, given.attached, given.wide)


@contextmanager
def _lab(there: Path | None) -> Iterator[Lab]:
    if there is not None:
        yield Lab.find(there)
        return
    root = Path(tempfile.mkdtemp(prefix="trivet-bench-"))
    root.chmod(0o755)  # the nodes' own user has its programs there
    made = Lab.create(root, 3)
    try:
        made.up(say)
        yield made
    finally:
        made.down(say)
        shutil.rmtree(root, ignore_errors=True)


def _measured(lab: Lab, count: int, attached: int, wide: int) -> Results:
    names = [f"v-{number:05}" for number in range(count)]
    workers = _Workers(lab, wide)
    with lab.client() as client:
        members = [{"node": node, "file_gib": POOL_GIB} for node in lab.plan.workers]
        client.pools.create(POOL, spec={"members": members}, wait_s=WAIT_S)
        time.sleep(SETTLE_S)
        before = _memory_mb(lab, CONTROL)
        spec = {"size_gib": 1, "replicas": 2, "pool": POOL}
        figures = workers.all(
            "create", names, lambda c, name: c.volumes.create(name, spec=spec, wait_s=WAIT_S)
        )
        time.sleep(SETTLE_S)
        figures["kb_a_volume"] = (_memory_mb(lab, CONTROL) - before) * 1000 / count
        qos = {"qos": {"iops": 1000}}
        figures |= workers.all(
            "edit", names, lambda c, name: c.volumes.edit(name, spec=qos, wait_s=WAIT_S)
        )
        held = [v.meta.name for v in _volumes(client) if v.meta.name in names][:attached]
        asyncio.run(_hold(lab, held, attach=True))
        say(f"{len(held)} are attached")
        figures["attached_mb"] = _memory_mb(lab, DATA) / max(1, len(held))
        figures |= _reaction(lab, client, held)
        lab.start(LOST_NODE)
        lab.wait_ready([LOST_NODE], say)
        asyncio.run(_hold(lab, held, attach=False))
        figures |= workers.all(
            "delete", names, lambda c, name: c.volumes.delete(name, wait_s=WAIT_S)
        )
        client.pools.delete(POOL, wait_s=WAIT_S)
    raw = {"count": count, "wide": wide, "attached": len(held)}
    return Results(figures, raw)


def _reaction(lab: Lab, client: Client, held: Sequence[str]) -> dict[str, float]:
    """Seconds from a node's end to what is known of it."""
    there = [v.meta.name for v in _volumes(client) if _state(v) is not None]
    waiting = {"told": set(there), "recorded": {name for name in there if name in held}}
    figures: dict[str, float] = {f"{LOST_NODE}_volumes": float(len(there))}
    lab.kill(LOST_NODE)
    begun = time.monotonic()
    while any(waiting.values()) and time.monotonic() - begun < REACT_S:
        time.sleep(LOOK_S)
        for volume in _volumes(client):
            if _state(volume) is not ReplicaState.IN_SYNC:
                waiting["recorded"].discard(volume.meta.name)
            told = volume.status.condition("Redundant")
            if told is not None and told.status == "false":
                waiting["told"].discard(volume.meta.name)
        for what in [what for what, names in waiting.items() if not names]:
            figures.setdefault(f"{what}_s", round(time.monotonic() - begun, 2))
    for what, names in waiting.items():
        if names:
            raise SystemExit(f"not {what} of {len(names)} volumes in {REACT_S:.0f} s")
    return figures


def _volumes(client: Client) -> Iterable[Volume]:
    found: Iterable[Volume] = client.kind(VOLUME).list()
    return found


def _state(volume: Volume) -> ReplicaState | None:
    """The state of its replica on the node that is lost."""
    states = [r.state for r in volume.status.replicas if r.node == LOST_NODE]
    return states[0] if states else None


def _memory_mb(lab: Lab, programs: Sequence[str]) -> float:
    """The memory of these programs on all nodes."""
    pids = [pid for node in lab.plan.workers for pid in lab.machine(node).pids()]
    return sum(pss_mb(pid) for pid in pids if _program(pid).startswith(tuple(programs)))


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def _hold(lab: Lab, names: Sequence[str], *, attach: bool) -> None:
    """Attach volumes on a node, or detach them, as the service of the VMs would."""
    settings = lab.settings(HOLDER_NODE)
    bus = await NatsBus.connect(
        settings.bus.urls,
        service="compute",
        name="bench",
        seed_file=settings.bus.keys_dir / "compute.nk",
        ca_file=settings.bus.ca_file,
    )
    try:
        storage = call.Client(bus, "compute")
        for name in names:
            holder = f"vm/{name}"
            if attach:
                asked = AttachRequest(project="default", name=name, holder=holder, node=HOLDER_NODE)
                await storage.call(ATTACH, asked)
            else:
                await storage.call(
                    DETACH, DetachRequest(project="default", name=name, holder=holder)
                )
    finally:
        await bus.close()


class _Workers:
    """So many at a time, each with a connection of its own."""

    def __init__(self, lab: Lab, wide: int) -> None:
        self._lab = lab
        self._wide = wide
        self._own = threading.local()

    def all(self, what: str, names: Sequence[str], act: Act) -> dict[str, float]:
        """Do it with all; how many a second, and how long one took."""
        seconds: list[float] = []

        def one(name: str) -> None:
            if not hasattr(self._own, "client"):
                self._own.client = self._lab.client()
            begun = time.monotonic()
            act(self._own.client, name)
            seconds.append(time.monotonic() - begun)

        begun = time.monotonic()
        with ThreadPoolExecutor(self._wide) as pool:
            list(pool.map(one, names))
        rate = len(names) / (time.monotonic() - begun)
        say(f"{what}: {rate:.1f} a second")
        return {
            f"{what}s_per_s": rate,
            f"{what}_p50_ms": ms(percentile(seconds, 50)),
            f"{what}_p99_ms": ms(percentile(seconds, 99)),
        }
