"""fio: the jobs that disks are measured with, and what one run of them tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

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

FILL = Job("fill", ("--rw=write", "--bs=1M", "--iodepth=4"))


def need_fio() -> None:
    """Ends the run where there is no fio."""
    if shutil.which("fio") is None:
        sys.exit("fio is not installed: apt-get install fio (for this benchmark alone)")


def fio(job: Job, target: tuple[str, ...], size_mib: int, seconds: float | None) -> float:
    """Operations a second, or bytes; `seconds` None: once over all of it."""
    side = run_fio(job, target, size_mib, seconds)
    return float(side["bw_bytes"] if job.bandwidth else side["iops"])


def run_fio(
    job: Job, target: tuple[str, ...], size_mib: int, seconds: float | None
) -> dict[str, Any]:
    """What fio tells of its reads or writes."""
    timed = ("--time_based", f"--runtime={seconds * 1000:.0f}ms") if seconds else ()
    done = subprocess.run(
        (
            "fio",
            f"--name={job.name}",
            f"--size={size_mib}M",
            "--thread",
            "--randrepeat=0",
            "--output-format=json",
            *target,
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
    told = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side: dict[str, Any] = told["read"] if "read" in job.options[0] else told["write"]
    return side
