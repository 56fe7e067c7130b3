"""What an idle node costs: memory (PSS) and processor time of all services and the bus.

One instance with one guest that does nothing; the guest, its disk servers and libvirt are the
user's load and not counted, the supervisor is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bench.instance import Instance, instance
from bench.measure import Results, cpu_seconds, say
from trivet.host import processes

SETTLE_S = 15.0
WATCH_S = 60.0
NOT_OURS = ("libvirtd",)


def pss_mb(pid: int) -> float:
    """A process's memory, shared pages by its share of them, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no Pss of {pid}")


def measure(made: Instance, watch_s: float) -> Results:
    """The figures of one run."""
    made.trivet("image", "build-tiny")
    made.trivet("vm", "create", "a", "--image", "tiny", "--network", "default", "--wait", "120")
    say("one guest runs")
    time.sleep(SETTLE_S)
    records = processes.load_all(made.layout.processes)
    pids = {record.name: record.pid for record in records if record.name not in NOT_OURS}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    begun = time.monotonic()
    time.sleep(watch_s)
    watched_s = time.monotonic() - begun
    cpu = {name: (cpu_seconds(pid) - before[name]) / watched_s * 100 for name, pid in pids.items()}
    pss = {name: pss_mb(pid) for name, pid in pids.items()}
    figures = {"pss_mb": sum(pss.values()), "cpu_pct": sum(cpu.values())}
    raw = {
        "pss_mb": {name: round(value, 1) for name, value in pss.items()},
        "cpu_pct": {name: round(value, 2) for name, value in cpu.items()},
        "watched_s": round(watched_s, 1),
    }
    return Results(figures, raw)


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench idle", description=__doc__)
    parser.add_argument("--watch", type=float, default=WATCH_S, metavar="SECONDS")
    chosen = parser.parse_args(arguments)
    with instance() as made:
        return measure(made, chosen.watch)
