"""A disk inspector that tells what its configuration says."""

from __future__ import annotations

from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import Model
from trivet.contracts.storage.disk import DiskFacts


class FakeInspectorConfig(Model):
    """The disks to tell; `broken`: looking fails."""

    disks: tuple[DiskFacts, ...] = ()
    broken: bool = False


class FakeDiskInspector:
    """The fake of a disk inspector; a test may replace `found`."""

    name: ClassVar[str] = "fake-inspector"
    Config: ClassVar[type[Model]] = FakeInspectorConfig

    def __init__(self, context: DriverContext, config: FakeInspectorConfig) -> None:
        self.found = config.disks
        self.broken = config.broken

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable, never chosen by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """What was configured."""
        if self.broken:
            raise Fatal(DRIVER_FAILED, "looking was made to fail")
        return self.found
