"""Figures: percentiles, what machine this is, and the one object that a benchmark prints."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass
class Results:
    """`figures` are what is promised (names of their own, flat); `raw` how they came about."""

    figures: dict[str, float] = field(default_factory=dict)
    raw: Mapping[str, object] = field(default_factory=dict)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def median(samples: Sequence[float]) -> float:
    """The 50th percentile."""
    return percentile(samples, 50)


def ms(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


def machine() -> dict[str, object]:
    """What a reader needs to know of the machine that a figure comes from."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(pages * page / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def commit() -> str:
    """The commit of the checkout, with `+` where it was changed since."""
    done = subprocess.run(
        ("git", "describe", "--always", "--dirty=+"), capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def as_object(name: str, results: Results, about: dict[str, object]) -> dict[str, object]:
    """The object that `--json` prints."""
    return {
        "bench": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**about, "commit": commit()},
        "results": {key: round(value, 4) for key, value in results.figures.items()},
        "raw": results.raw,
    }


def tell(name: str, results: Results, about: dict[str, object], *, as_json: bool) -> None:
    """Print the results: one object, or a line a figure."""
    if as_json:
        print(json.dumps(as_object(name, results, about), indent=1))
        return
    print(f"{name} on {about['cores']} x {about['cpu']}, load {about['load_before']:.1f} before")
    for key, value in results.figures.items():
        print(f"  {key:32} {value:.4g}")


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used so far, its own and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_BEGUN = time.monotonic()


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"==> [{time.monotonic() - _BEGUN:5.1f} s] {text}", file=sys.stderr, flush=True)
