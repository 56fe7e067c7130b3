"""A fake alarm sink: keeps what it was told, in order, and refuses what no sink should be told."""

from __future__ import annotations

from typing import ClassVar

from trivet.contracts.alarm import AlarmState
from trivet.contracts.alarm_sink import AlarmNotice
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import INVALID, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import Model
from trivet.testing.fakes.world import FaultConfig, Faults, Worlds


class AlarmSinkWorld:
    """What was told, each time; `reachable` as long as somebody is there to take it."""

    def __init__(self) -> None:
        self.reachable = True
        self.told: list[AlarmNotice] = []


class FakeAlarmSink:
    """Takes notices; stricter than a real one: a cause and a remedy must be there."""

    name: ClassVar[str] = "fake-alarm-sink"
    Config: ClassVar[type[Model]] = FaultConfig
    worlds: ClassVar[Worlds[AlarmSinkWorld]] = Worlds(AlarmSinkWorld)

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        self.world = self.worlds.at(context.state_dir)
        self.faults = Faults(config)

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere, and is never taken by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close; the world stays."""

    async def tell(self, notice: AlarmNotice) -> None:
        """Keep the notice."""
        self.faults.check("tell")
        if not self.world.reachable:
            raise Retry(UNAVAILABLE, "nobody is there to take it")
        if not notice.cause or not notice.remedy:
            raise Refused(INVALID, f"{notice.name}: without cause or remedy")
        if (notice.state is AlarmState.CLEARED) != (notice.cleared_at is not None):
            raise Refused(INVALID, f"{notice.name}: cleared_at goes with cleared")
        self.world.told.append(notice)
