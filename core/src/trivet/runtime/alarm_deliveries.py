"""The duty of a service's leader to tell its alarms to the sinks that settings name.

What a sink knows is recorded with the alarm, after it was told; so it is told at least once,
whatever dies in between. Sinks are told independently: a dead one delays no other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from trivet.contracts.alarm import Alarm
from trivet.contracts.alarm_sink import AlarmSink
from trivet.contracts.errors import Refused, TrivetError
from trivet.contracts.resource import Kind
from trivet.runtime import alarm_plan as plan
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

SEPARATOR = "\0"
CONCURRENT = 4


class AlarmDeliveries:
    """Tells sinks what they do not know yet; one key of work for each sink and alarm."""

    def __init__(self, service: Service, kind: Kind[Alarm], sinks: Mapping[str, AlarmSink]) -> None:
        self._runtime = service.runtime
        self._alarms = service.collection(kind)
        self._sinks = sinks
        self._reconciler = Reconciler(
            "alarm sinks",
            self._reconcile,
            clock=service.runtime.clock,
            keys=self._keys,
            bound=CONCURRENT,
        )
        self._alarms.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _keys(self) -> list[str]:
        keys = [self._alarms.key_of(alarm) for alarm in self._alarms.list()]
        return [sink + SEPARATOR + key for sink in self._sinks for key in keys]

    def _changed(self, key: str) -> None:
        for sink in self._sinks:
            self._reconciler.wake(sink + SEPARATOR + key)

    async def _reconcile(self, work: str) -> float | None:
        sink, _, key = work.partition(SEPARATOR)
        alarm, now = self._alarms.by_key(key), self._runtime.clock.now()
        if alarm is None or (wait_s := plan.due(alarm, sink, now)) is None:
            return None
        if wait_s > 0:
            return wait_s
        change = alarm.status.change
        try:
            runtime = self._runtime
            await self._sinks[sink].tell(plan.notice(alarm, runtime.service, runtime.node))
        except TrivetError as error:
            problem, final = error.detail, isinstance(error, Refused)
            log.warning("alarm %s: %s was not told: %s", alarm.meta.name, sink, problem)
            await self._alarms.mutate(
                key, lambda a: plan.not_delivered(a, sink, change, problem, now, final=final)
            )
        else:
            await self._alarms.mutate(key, lambda a: plan.delivered(a, sink, change))
        return 0.0
