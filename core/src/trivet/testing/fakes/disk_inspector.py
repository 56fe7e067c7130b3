"""A disk inspector that tells what its configuration says."""

from __future__ import annotations

from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import Model
from trivet.contracts.storage.disk import DiskFacts
from trivet.contracts.storage.inspector import DiskReading


class FakeInspectorConfig(Model):
    """The disks to tell; `broken`: looking fails. `readings`: how disks do, by device, one after
    the other; the last one stays."""

    disks: tuple[DiskFacts, ...] = ()
    broken: bool = False
    readings: dict[str, tuple[DiskReading, ...]] = {}


class FakeDiskInspector:
    """The fake of a disk inspector; a test may replace `found`. `opened`: those that were opened
    last, by node."""

    name: ClassVar[str] = "fake-inspector"
    opened: ClassVar[dict[str, FakeDiskInspector]] = {}
    Config: ClassVar[type[Model]] = FakeInspectorConfig

    def __init__(self, context: DriverContext, config: FakeInspectorConfig) -> None:
        self._node = context.node
        self.found = config.disks
        self.broken = config.broken
        self.readings = {device: list(told) for device, told in config.readings.items()}

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable, never chosen by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Be found by tests."""
        self.opened[self._node] = self

    async def close(self) -> None:
        """Nothing to let go."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """What was configured."""
        if self.broken:
            raise Fatal(DRIVER_FAILED, "looking was made to fail")
        return self.found

    async def read(self, device: str, within_s: float) -> DiskReading:
        """What was configured; a disk of which nothing was does well."""
        if all(facts.device != device for facts in self.found):
            return DiskReading(present=False, answered=False)
        told = self.readings.get(device, [])
        if not told:
            return DiskReading(latency_ms=1.0)
        return told.pop(0) if len(told) > 1 else told[0]
