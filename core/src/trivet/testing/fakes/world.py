"""What fake drivers of a node share: a world that outlives them, and faults on order.

A real driver's effects stay when its process dies, so a fake's must too: the world is kept by
the driver's own folder, and a driver that is made again for the same folder finds it as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import Model

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
