"""fio: the jobs that disks are measured with, where they run, and what one run of them tells.

Beside operations and bytes each run tells the processor time an operation took, by process: where
all that takes part shares a few processors, that is what limits a path, and it wobbles less than
times do when the machine has something else to do. What the kernel does later by itself (writing
dirty pages back) is nobody's; of fio itself it is the thread that asks, without what a client's
library runs beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import cpu_seconds, median, say

FIO_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Job:
    """What fio does; `bandwidth`: it is measured in bytes a second, not in operations."""

    name: str
    options: tuple[str, ...]
    bandwidth: bool = False


JOBS = (
    Job("randread_qd1", ("--rw=randread", "--bs=4k", "--iodepth=1")),
    Job("randread_qd32", ("--rw=randread", "--bs=4k", "--iodepth=32")),
    Job("randwrite_qd1", ("--rw=randwrite", "--bs=4k", "--iodepth=1")),
    Job("randwrite_qd32", ("--rw=randwrite", "--bs=4k", "--iodepth=32")),
    Job("randwrite_fsync_qd1", ("--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1")),
    Job("read_1m", ("--rw=read", "--bs=1M", "--iodepth=4"), bandwidth=True),
    Job("write_1m", ("--rw=write", "--bs=1M", "--iodepth=4"), bandwidth=True),
)

Pids = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Target:
    """Where fio works: its own words for that, what to start it with (`env` and the like), and
    the processes behind it by what they are called."""

    options: tuple[str, ...]
    within: tuple[str, ...] = ()
    behind: Pids = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """Operations a second, or bytes; and microseconds of processor time an operation."""

    rate: float
    cpu_us: Mapping[str, float]


FILL = Job("fill", ("--rw=write", "--bs=1M", "--iodepth=4"))


def need_fio() -> None:
    """Ends the run where there is no fio."""
    if shutil.which("fio") is None:
        sys.exit("fio is not installed: apt-get install fio (for this benchmark alone)")


def fio(job: Job, target: Target, size_mib: int, seconds: float | None) -> Ran:
    """Run a job; `seconds` None: once over all of it."""
    pids = target.behind
    before = {pid: cpu_seconds(pid) for found in pids.values() for pid in found}
    told = run_fio(job, target, size_mib, seconds)
    spent: dict[str, float] = defaultdict(float)
    for name, found in pids.items():
        spent[name] += sum(cpu_seconds(pid) - before[pid] for pid in found)
    side = _side(job, told)
    spent["fio"] = (told["usr_cpu"] + told["sys_cpu"]) / 100 * told["job_runtime"] / 1000
    operations = max(1, side["total_ios"])
    cpu_us = {name: round(seconds * 1e6 / operations, 1) for name, seconds in spent.items()}
    return Ran(float(side["bw_bytes"] if job.bandwidth else side["iops"]), cpu_us)


def latency(job: Job, target: Target, size_mib: int, seconds: float) -> Mapping[str, float]:
    """The percentiles of what an operation took, in nanoseconds, as fio names them."""
    side = _side(job, run_fio(job, target, size_mib, seconds))
    percentiles: dict[str, float] = side["clat_ns"]["percentile"]
    return percentiles


def _side(job: Job, told: dict[str, Any]) -> dict[str, Any]:
    side: dict[str, Any] = told["read"] if "read" in job.options[0] else told["write"]
    return side


def run_fio(job: Job, target: Target, size_mib: int, seconds: float | None) -> dict[str, Any]:
    """What fio tells of the job."""
    timed = ("--time_based", f"--runtime={seconds * 1000:.0f}ms") if seconds else ()
    done = subprocess.run(
        (
            *target.within,
            "fio",
            f"--name={job.name}",
            f"--size={size_mib}M",
            "--thread",
            "--randrepeat=0",
            "--output-format=json",
            *target.options,
            *job.options,
            *timed,
        ),
        capture_output=True,
        text=True,
        timeout=FIO_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"fio {job.name} failed: {done.stderr.strip() or done.stdout[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return found


@dataclass(frozen=True)
class Rounds:
    """How often each job runs on each target, for how long, and on which disks all of it is."""

    rounds: int
    seconds: float
    disks: tuple[Path, ...]


class Cells:
    """The figures of jobs by target, a round after the other."""

    def __init__(self) -> None:
        self._rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._cpu_us: dict[str, dict[str, list[Mapping[str, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def measure(
        self, jobs: Sequence[Job], targets: Mapping[str, Target], size_mib: int, how: Rounds
    ) -> None:
        """All jobs on all targets, in turn. What one wrote is on its disk before the next one
        begins."""
        for number in range(how.rounds):
            for job in jobs:
                say(f"round {number + 1} of {how.rounds}: {job.name}")
                for name, target in targets.items():
                    ran = fio(job, target, size_mib, how.seconds)
                    subprocess.run(("sync", "--file-system", *how.disks), check=True)
                    self._rates[job.name][name].append(ran.rate)
                    self._cpu_us[job.name][name].append(ran.cpu_us)

    def ratios(self, ours: str, theirs: str) -> dict[str, float]:
        """By job: the median over the rounds of one target over another."""
        return {
            job: median([a / b for a, b in zip(found[ours], found[theirs], strict=True)])
            for job, found in self._rates.items()
        }

    def raw(self, base: str) -> dict[str, object]:
        """All rates; by job, target and process the median of the microseconds; and, as
        `cpu_ratio`, those of the target `base` over each other's: the ratio of rates that is to
        be expected where processors are all that limits."""
        spent = {
            job: {name: _medians(runs) for name, runs in by_target.items()}
            for job, by_target in self._cpu_us.items()
        }
        ratios = {
            job: {
                name: round(of[base]["sum"] / took["sum"], 3)
                for name, took in of.items()
                if name != base and took["sum"]
            }
            for job, of in spent.items()
        }
        return {**self._rates, "cpu_us": spent, "cpu_ratio": ratios}


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    by_process = {name: median([run[name] for run in runs]) for name in runs[0]}
    return {**by_process, "sum": round(sum(by_process.values()), 1)}
