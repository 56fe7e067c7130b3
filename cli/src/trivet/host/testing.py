"""`trivet lint` and `trivet test`: every check of a checkout, with one sum at the end.

The stages run in two lanes beside each other: what works the machine (real engines, whole nodes)
waits most of its time, and what only computes fills the gaps. Within a lane they keep their order;
each is told as a whole when it ends, with its time. A stage that fails does not stop the later
ones. What could not run here is told with its reason, so that a green result says what it is
worth. The last line counts everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from xml.etree import ElementTree


@dataclass(frozen=True)
class Stage:
    """Tests that run together: those of a folder below `tests`, or those of them that pytest's
    `-m` expression chooses."""

    name: str
    folder: str
    chosen: str = ""


COMPUTING = (
    Stage("unit", "unit"),
    Stage("architecture", "architecture"),
    Stage("contract", "contract", "not root"),
    Stage("functional", "functional"),
    Stage("simulation", "simulation"),
)
WORKING = (
    Stage("engines", "contract", "root"),
    Stage("lab", "lab"),
    Stage("kernel", "kernel"),
)
"""These share the machine's own names and may not run beside each other."""

SOURCES = ("core", "services", "plugins", "cli", "tests", "bench")
NO_TESTS = 5


@dataclass
class Result:
    """What a stage came to; `reasons` counts why tests were left out."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Result) -> None:
        """Sum up."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.reasons += other.reasons

    def __str__(self) -> str:
        words = [f"{self.passed} passed", f"{self.failed} failed"]
        return ", ".join(words + ([f"{self.skipped} skipped"] if self.skipped else []))


def lint(folder: Path) -> Result:
    """Run format, style, types and layers; each counts as one check."""
    tool = Path(sys.executable).parent
    there = [name for name in SOURCES if any((folder / name).rglob("*.py"))]
    packages = [str(p.relative_to(folder)) for p in _source_folders(folder)]
    checks = {
        "ruff check": (tool / "ruff", "check", *there),
        "ruff format": (tool / "ruff", "format", "--check", *there),
        "mypy": (tool / "mypy", "--strict", *packages),
        "import-linter": (tool / "lint-imports",),
    }
    result = Result()
    for name, command in checks.items():
        done = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            result.passed += 1
        else:
            result.failed += 1
            print(done.stdout.rstrip())
        print(f"lint: {name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
    return result


def _source_folders(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob("**/src/trivet") if ".venv" not in p.parts)


def run_stages(folder: Path, extra: Sequence[str], *, soak: bool) -> Result:
    """Run everything that this machine can; `extra` goes to pytest. Where `extra` names files
    or folders, only those run."""
    options = [*extra, *(["--soak"] if soak else [])]
    if any(not arg.startswith("-") and Path(arg.partition("::")[0]).exists() for arg in extra):
        return _pytest(folder, options)
    with ThreadPoolExecutor(max_workers=2) as lanes:
        working = lanes.submit(_run_lane, folder, WORKING, options)
        total = lint(folder)
        total.add(_run_lane(folder, COMPUTING, options))
        total.add(working.result())
    return total


def _run_lane(folder: Path, stages: Sequence[Stage], options: Sequence[str]) -> Result:
    total = Result()
    for stage in stages:
        if any((folder / "tests" / stage.folder).rglob("test_*.py")):
            total.add(_run_stage(folder, stage, options))
    return total


def _run_stage(folder: Path, stage: Stage, options: Sequence[str]) -> Result:
    """Run a stage, and print at once all that it said."""
    chosen = ("-m", stage.chosen) if stage.chosen else ()
    print(f"==> {stage.name} begins", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        result = _pytest(folder, [*chosen, *options, f"tests/{stage.folder}"], said)
        said.seek(0)
        head = f"\n==> {stage.name}: {result} in {time.monotonic() - begun:.0f} s"
        print(f"{head}\n{said.read()}", end="", flush=True)
    return result


def tell(result: Result) -> None:
    """Say what could not run and why, and last the sum."""
    print()
    for reason, count in sorted(result.reasons.items()):
        print(f"not run: {count} test{'s' if count > 1 else ''}: {reason}")
    print(result, flush=True)


def _pytest(folder: Path, arguments: Sequence[str], said: IO[str] | None = None) -> Result:
    """Run pytest; what it says goes to `said`, or is seen as it comes."""
    with tempfile.TemporaryDirectory(prefix="trivet-test-") as scratch:
        report = Path(scratch) / "report.xml"
        done = subprocess.run(
            (sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT if said else None,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
        )
        result = read_report(report.read_text()) if report.exists() else Result()
    if done.returncode not in (0, NO_TESTS) and result.failed == 0:
        result.failed += 1  # pytest itself could not run, which must not look like success
    return result


def read_report(xml: str) -> Result:
    """The sums of a JUnit report, with the reasons of what was left out."""
    result = Result()
    for case in ElementTree.fromstring(xml).iter("testcase"):
        left_out = case.find("skipped")
        if left_out is not None:
            result.skipped += 1
            result.reasons[left_out.get("message") or "no reason given"] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
        else:
            result.passed += 1
    return result
