"""What fake drivers of a node share: a world that outlives them, and faults on order.

A real driver's effects stay when its process dies, so a fake's must too: the world is kept by
the driver's own folder, and a driver that is made again for the same folder finds it as it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import Field

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.drift import Drift

WorldT = TypeVar("WorldT")


class FaultConfig(Model):
    """`fail`: how many of the next calls of a method, by its name, fail before any effect."""

    fail: dict[str, int] = Field(default={})


class Worlds(Generic[WorldT]):
    """The worlds of one kind of fake, each made at its first use."""

    def __init__(self, make: type[WorldT]) -> None:
        self._make = make
        self._worlds: dict[Path, WorldT] = {}

    def at(self, folder: Path) -> WorldT:
        """The world of the driver that works in `folder`."""
        if folder not in self._worlds:
            self._worlds[folder] = self._make()
        return self._worlds[folder]


class Faults:
    """Faults that are still to come."""

    def __init__(self, config: FaultConfig) -> None:
        self._left = dict(config.fail)

    def fail(self, method: str, times: int = 1) -> None:
        """Let the next `times` calls of `method` fail."""
        self._left[method] = times

    def check(self, method: str) -> None:
        """Raise `Fatal(DRIVER_FAILED)` if this call is to fail."""
        if self._left.get(method, 0) > 0:
            self._left[method] -= 1
            raise Fatal(DRIVER_FAILED, f"{method}: a fault that the test ordered")


class DamagedWorld:
    """A part of a node that somebody tampers with: what is wrong, by the network or port that
    it is wrong with, until that is made again."""

    def __init__(self) -> None:
        self.wrong: dict[ResourceId, str] = {}
        self.told = asyncio.Event()

    def damage(self, concerns: ResourceId, what: str) -> None:
        """Let something be wrong that the driver's lists don't show."""
        self.wrong[concerns] = what
        self.told.set()


class FakeNodeDriver:
    """What the fakes of a node's network begin with: faults on order, damage, and that they
    work anywhere but are never taken by `auto`."""

    Config: ClassVar[type[Model]] = FaultConfig
    damaged: DamagedWorld

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        self.faults = Faults(config)
        self.prefix = context.prefix

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere, and is never taken by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close; the world stays."""

    async def drift(self) -> tuple[Drift, ...]:
        """The damage that was done."""
        self.faults.check("drift")
        return tuple(Drift(concerns=c, what=w) for c, w in self.damaged.wrong.items())

    async def changed(self) -> None:
        """Return when the world was tampered with."""
        await self.damaged.told.wait()
        self.damaged.told.clear()
