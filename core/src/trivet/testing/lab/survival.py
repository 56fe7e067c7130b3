"""What a campaign of faults has seen: a line for each, kept in a file, and its figures by kind.

The file is what makes a long campaign one of many pieces: seeds that are in it are not done
again, whatever came of them. A fault that found something keeps its line, with what it found.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trivet.testing.lab.volume_faults import VolumeFault


@dataclass(frozen=True)
class Survived:
    """How one fault went. `wait_s`: how long the guest's writes waited at most; `beyond_s`: how
    much of that came after the fault was over; `sync_s`: until the replicas were in sync again,
    from then; `wrong`: what did not hold ('': all did). `seed` None: it was asked for by name."""

    fault: str
    wait_s: float = 0.0
    beyond_s: float = 0.0
    sync_s: float = 0.0
    wrong: str = ""
    seed: int | None = None

    def __str__(self) -> str:
        told = self.wrong or f"waited {self.wait_s:5.2f} s, in sync after {self.sync_s:5.1f} s"
        seed = "" if self.seed is None else f"seed {self.seed:4} "
        return f"{seed}{self.fault:24} {told}"


def read(file: Path | None) -> list[Survived]:
    """What the file has; none: nothing."""
    if file is None or not file.exists():
        return []
    return [Survived(**json.loads(line)) for line in file.read_text().splitlines()]


def add(file: Path | None, seen: Survived) -> None:
    """Add a line to the file, where there is to be one."""
    if file is not None:
        with file.open("a") as held:
            held.write(json.dumps(asdict(seen)) + "\n")


def figures(all_seen: Iterable[Survived]) -> str:
    """All kinds with how many there were, how many went wrong, and the seconds of the others'
    waits, as JSON."""
    kinds: dict[str, list[Survived]] = defaultdict(list)
    for seen in all_seen:
        kinds[VolumeFault.parse(seen.fault).kind].append(seen)
    told = {kind: _figures(kinds[kind]) for kind in sorted(kinds)}
    return json.dumps(told, indent=1)


def _figures(seen: Sequence[Survived]) -> dict[str, float]:
    well = [s for s in seen if not s.wrong]
    found: dict[str, float] = {"n": len(seen), "wrong": len(seen) - len(well)}
    for name in ("wait_s", "beyond_s", "sync_s"):
        values = sorted(getattr(s, name) for s in well)
        if values:
            found |= {f"{name}_p50": _at(values, 50), f"{name}_p99": _at(values, 99)}
            found[f"{name}_max"] = round(values[-1], 2)
    return found


def _at(values: Sequence[float], percent: int) -> float:
    """The value that so many percent of all are not above."""
    return round(values[max(0, -(-len(values) * percent // 100) - 1)], 2)
