"""What every driver has in common: a name, a configuration, a probe, a place to work in.

A driver is a class. Its `probe()` says, without changing anything, whether it can work on this
machine and why not; `auto` takes the usable one of the highest score. An instance is made
with a `DriverContext` and its own validated `Config`, and opened before use. All of its methods
are asynchronous, may be repeated (applying twice equals once), find absence normal when
deleting, and raise only `TrivetError`s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from trivet.contracts.model import Model


class Probe(Model):
    """Whether a driver can work here. `reason` is a sentence for people either way; of the
    usable ones `auto` takes the highest `score` (a fake scores below 0: never by `auto`)."""

    usable: bool
    reason: str
    score: int = 0


class NoConfig(Model):
    """The configuration of a driver that has none."""


@dataclass(frozen=True)
class DriverContext:
    """Where a driver works: the node, and folders that are its own.

    `state_dir` outlives a reboot, `run_dir` need not; both exist. `prefix` begins the name of
    every link, namespace, table and unit that a driver makes, so that clean-up finds them.
    """

    node: str
    state_dir: Path
    run_dir: Path
    prefix: str = "tv"


@runtime_checkable
class Driver(Protocol):
    """The part of the law that is the same for every kind of driver."""

    name: ClassVar[str]
    Config: ClassVar[type[Model]]

    def __init__(self, context: DriverContext, config: Any) -> None: ...

    @classmethod
    async def probe(cls) -> Probe:
        """Whether this driver can work on this machine; changes nothing, ends in 30 s."""
        ...

    async def open(self) -> None:
        """Make ready for use; called once, before all else."""
        ...

    async def close(self) -> None:
        """Let go of connections and tasks; what runs on the node (guests, disks) stays."""
        ...
