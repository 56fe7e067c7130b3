"""How a disk does, from what was measured of it: pure.

A ladder over the readings of a window, the worst first: errors at every reading (failed), no
answer for most of the time (isolated), very slow over the whole window (isolated), errors that
come again (isolated), the disk's own word that it fails or is worn out (isolated); then what is
only warned of. A single slow second or a single error never isolates. What was isolated or failed
stays so until somebody takes the disk back: a disk that fails and recovers fails again. A warning
goes when the disk has been clearly better than its bound for the whole window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trivet.contracts.storage.disk import DiskHealth

LOOK_S = 1.0
"""How often a disk is looked at."""

STUCK_OF, STUCK_LOOKS = 10, 13
"""Isolated when it did not answer in so many of so many looks in a row."""

FAILED_LOOKS = 5
"""Failed when so many looks in a row ended in errors."""

ERRORS_WARN, ERRORS_ISOLATE = 1, 20
"""Errors within the window."""

WORN_WARN, WORN_ISOLATE = 90, 100
"""Percent of its life that an SSD says to have used."""

BETTER = 0.8
"""A warning of slowness goes below this share of the bound."""

COVERED = 0.5
"""The share of the window that must be measured before slowness is judged."""


@dataclass(frozen=True)
class Sample:
    """One look. `latency_ms`: of the requests since the last one (None: not known); `failed`: the
    look itself ended in an error; `errors`: how many were counted since the last one; `stuck`:
    no answer within the bound."""

    latency_ms: float | None = None
    stuck: bool = False
    failed: bool = False
    errors: int = 0
    worn_percent: int = 0
    failing: str = ""


@dataclass(frozen=True)
class Limits:
    """The settings."""

    slow_ms: float = 25.0
    isolate_ms: float = 125.0
    window_s: float = 180.0
    stuck_s: float = 3.0

    @property
    def looks(self) -> int:
        """How many samples a window has."""
        return max(int(self.window_s / LOOK_S), STUCK_LOOKS)


@dataclass(frozen=True)
class Finding:
    """How it does, and why."""

    health: DiskHealth
    why: str = ""


def find(samples: Sequence[Sample], before: DiskHealth, limits: Limits) -> Finding | None:
    """How the disk does by its last samples, oldest first; None: as before."""
    if before in (DiskHealth.ISOLATED, DiskHealth.FAILED) or not samples:
        return None
    found = _worst(samples, limits)
    if found is not None:
        return found
    warned = _warned(samples, before, limits)
    if warned is not None:
        return warned
    return Finding(DiskHealth.OK)


def _worst(samples: Sequence[Sample], limits: Limits) -> Finding | None:
    last = samples[-1]
    recent = samples[-FAILED_LOOKS:]
    if len(recent) == FAILED_LOOKS and all(s.failed for s in recent):
        return Finding(DiskHealth.FAILED, f"{FAILED_LOOKS} reads in a row ended in errors")
    stuck = sum(s.stuck for s in samples[-STUCK_LOOKS:])
    if stuck >= STUCK_OF:
        why = f"no answer within {limits.stuck_s:g} s, {stuck} of {STUCK_LOOKS} times"
        return Finding(DiskHealth.ISOLATED, why)
    slow_ms = _latency_ms(samples, limits)
    if slow_ms is not None and slow_ms >= limits.isolate_ms:
        return Finding(DiskHealth.ISOLATED, _slow(limits.isolate_ms, limits))
    errors = sum(s.errors for s in samples)
    if errors >= ERRORS_ISOLATE:
        return Finding(
            DiskHealth.ISOLATED, f"over {ERRORS_ISOLATE} errors in {limits.window_s:g} s"
        )
    if last.failing:
        return Finding(DiskHealth.ISOLATED, f"it says of itself that it fails: {last.failing}")
    if last.worn_percent >= WORN_ISOLATE:
        return Finding(DiskHealth.ISOLATED, "it is worn out")
    return None


def _warned(samples: Sequence[Sample], before: DiskHealth, limits: Limits) -> Finding | None:
    bound_ms = limits.slow_ms * (BETTER if before is DiskHealth.WARNED else 1.0)
    slow_ms = _latency_ms(samples, limits)
    if slow_ms is not None and slow_ms >= bound_ms:
        return Finding(DiskHealth.WARNED, _slow(limits.slow_ms, limits))
    if sum(s.errors for s in samples) >= ERRORS_WARN:
        return Finding(DiskHealth.WARNED, "errors were counted")
    if samples[-1].worn_percent >= WORN_WARN:
        return Finding(DiskHealth.WARNED, f"over {WORN_WARN} % of its life is used")
    return None


def _latency_ms(samples: Sequence[Sample], limits: Limits) -> float | None:
    """The average over the window, once enough of it was measured."""
    known = [s.latency_ms for s in samples if s.latency_ms is not None]
    if len(known) < limits.looks * COVERED:
        return None
    return sum(known) / len(known)


def _slow(bound_ms: float, limits: Limits) -> str:
    return f"its requests took over {bound_ms:g} ms on average over {limits.window_s:g} s"
