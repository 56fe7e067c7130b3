"""The duty of a service's leader to raise and clear the alarms of its own resources.

Rules are asked whenever a resource changes, and all of them from time to time, since some depend
on the clock. What is decided about one alarm is `alarm_plan`'s; here is what was seen since when.
That memory dies with the leader: the next one counts anew, which can delay an alarm by its own
`after_s` or `clear_s` and no more.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trivet.contracts.alarm import AckRequest, Alarm, AlarmRule, AlarmSpec, AlarmState, Subject
from trivet.contracts.alarm_sink import AlarmSink
from trivet.contracts.endpoint import Crud
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.resource import AnyResource, Kind
from trivet.runtime import alarm_plan as plan
from trivet.runtime.alarm_deliveries import AlarmDeliveries
from trivet.runtime.call import Call
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.crud import Hooks, admit_anything, not_found, serve_crud
from trivet.runtime.pace import paced
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

RESYNC_S = 30.0


class AlarmController:
    """Keeps the alarms of a service true."""

    def __init__(
        self, service: Service, kind: Kind[Alarm], rules: Iterable[AlarmRule[Any]]
    ) -> None:
        self._clock = service.runtime.clock
        self._alarms = service.collection(kind)
        self._rules = {rule.name: rule for rule in rules}
        self._collections = {r.kind.name: service.collection(r.kind) for r in self._rules.values()}
        # By alarm: the resource's key with the rule it is about, and what was seen since when.
        self._about: dict[str, tuple[str, str]] = {}
        self._seen: dict[str, tuple[bool, datetime]] = {}
        self._crowd: dict[str, dict[str, str]] = defaultdict(dict)
        self._raised: dict[str, set[str]] = defaultdict(set)
        self._reconciler = Reconciler(
            "alarms",
            self._reconcile,
            clock=self._clock,
            keys=self._names,
            resync_s=RESYNC_S,
            survey=self._ask_all,
        )
        self._begun = False
        self._alarms.on_change(self._count)
        for collection in self._collections.values():
            collection.on_change(self._changed(collection))

    async def run(self) -> None:
        """Work until cancelled."""
        self._about.clear()
        self._seen.clear()
        self._crowd.clear()
        try:
            await self._reconciler.run()
        finally:
            self._begun = False

    def _count(self, key: str) -> None:
        """Keep count of the alarms that are raised, by rule."""
        alarm, name = self._alarms.by_key(key), key.rsplit(".", 1)[-1]
        for names in self._raised.values():
            names.discard(name)
        if alarm is not None and alarm.status.state is AlarmState.RAISED:
            self._raised[alarm.status.rule].add(name)

    # --- what is so ------------------------------------------------------------------------

    def _changed(self, collection: Collection[Any]) -> Any:
        def changed(key: str) -> None:
            if not self._begun:
                return  # all are asked for when it begins
            for name in self._ask(collection, key):
                self._reconciler.wake(name)

        return changed

    async def _ask_all(self) -> None:
        """Ask all rules about everything."""
        hurry, self._begun = not self._begun, True
        for collection in self._collections.values():
            async for key in paced(collection.keys(), self._clock, hurry=hurry):
                self._ask(collection, key)

    def _names(self) -> list[str]:
        """The names of all alarms that there is work with."""
        known = {alarm.meta.name for alarm in self._alarms.list()}
        return sorted(
            known | set(self._about) | {plan.overflow_name(self._rules[r]) for r in self._crowd}
        )

    def _ask(self, collection: Collection[Any], key: str) -> list[str]:
        """Ask the rules about one resource; the names of the alarms that may have changed."""
        resource, now = collection.by_key(key), self._clock.now()
        if resource is None:
            return [name for name, (about, _) in self._about.items() if about == key]
        names = []
        for rule in self._rules.values():
            if rule.kind.name != collection.kind.name:
                continue
            holds = rule.when(resource, now) is not None
            if not holds and not self._about:
                continue
            name = rule.alarm_name(resource.meta.id)
            if holds:
                self._about[name] = (key, rule.name)
            if holds or name in self._about:
                self._note(name, holds, now)
                names.append(name)
        return names

    def _note(self, name: str, holds: bool, now: datetime) -> datetime:
        """Since when it is so."""
        before = self._seen.get(name)
        if before is None or before[0] != holds:
            self._seen[name] = (holds, now)
        return self._seen[name][1]

    # --- what becomes of it ----------------------------------------------------------------

    async def _reconcile(self, name: str) -> float | None:
        alarm = self._alarms.get(name)
        seen = self._evidence(name, alarm)
        if seen is None:
            self._forget(name)
            return None
        now = self._clock.now()
        todo = plan.decide(alarm, seen, name, new_id(self._alarms.kind.name), now)
        match todo:
            case plan.Wait(seconds):
                if alarm is None and seen.cause is None:
                    self._forget(name)
                return seconds
            case plan.Remove(old):
                await self._alarms.remove(old)
                return None
            case plan.Write(None, after):
                await self._alarms.create(after)
                log.warning("alarm %s raised: %s", name, after.status.cause)
            case plan.Write(before, after):
                assert before is not None
                await self._alarms.write(before, after)
                if before.status.state is not after.status.state:
                    log.warning("alarm %s %s: %s", name, after.status.state, after.status.cause)
        return 0.0

    def _evidence(self, name: str, alarm: Alarm | None) -> plan.Evidence | None:
        """What is known about what the alarm of that name speaks of; None: of nothing."""
        for rule in self._rules.values():
            if plan.overflow_name(rule) == name:
                return self._crowd_evidence(rule)
        rule_name = alarm.status.rule if alarm else self._about.get(name, ("", ""))[1]
        known = self._rules.get(rule_name)
        now = self._clock.now()
        if known is None:
            return plan.Evidence(None, alarm.status.subject, None, now) if alarm else None
        resource = self._subject(name, known, alarm)
        if resource is None:
            self._leave_crowd(known, name)
            return plan.Evidence(known, alarm.status.subject, None, now, True) if alarm else None
        cause = known.when(resource, now)
        since = self._note(name, cause is not None, now)
        crowded = self._crowded(known, name, resource, cause is not None)
        return plan.Evidence(known, subject_of(resource), cause, since, crowded=crowded)

    def _subject(self, name: str, rule: AlarmRule[Any], alarm: Alarm | None) -> AnyResource | None:
        collection = self._collections[rule.kind.name]
        if alarm is not None:
            id_ = alarm.status.subject.id
            return collection.by_id(id_) if id_ else None
        found: AnyResource | None = collection.by_key(self._about[name][0])
        return found if found and rule.alarm_name(found.meta.id) == name else None

    def _forget(self, name: str) -> None:
        self._about.pop(name, None)
        self._seen.pop(name, None)

    # --- those beyond the bound --------------------------------------------------------------

    def _crowded(
        self,
        rule: AlarmRule[Any],
        name: str,
        resource: AnyResource,
        holds: bool,
    ) -> bool:
        """Whether so many alarms of the rule are raised that this one joins the crowd."""
        raised = self._raised[rule.name]
        if not holds or name in raised or len(raised) < plan.BOUND:
            self._leave_crowd(rule, name)
            return False
        self._crowd[rule.name][name] = resource.meta.name
        self._reconciler.wake(plan.overflow_name(rule))
        return True

    def _leave_crowd(self, rule: AlarmRule[Any], name: str) -> None:
        if self._crowd[rule.name].pop(name, None) is not None:
            self._reconciler.wake(plan.overflow_name(rule))

    def _crowd_evidence(self, rule: AlarmRule[Any]) -> plan.Evidence:
        cause = plan.overflow(rule, tuple(sorted(self._crowd[rule.name].values())))
        now = self._clock.now()
        since = self._note(plan.overflow_name(rule), cause is not None, now)
        return plan.Evidence(rule, Subject(kind=rule.kind.name), cause, since)


def subject_of(resource: AnyResource) -> Subject:
    """The resource, as an alarm names it."""
    meta = resource.meta
    return Subject(kind=resource.kind, id=meta.id, project=meta.project, name=meta.name)


async def keep_alarms(service: Service, kind: Kind[Alarm], rules: Iterable[AlarmRule[Any]]) -> None:
    """Have the service's leader keep its alarms, and tell them to the sinks of the settings."""
    runtime = service.runtime
    sinks: dict[str, AlarmSink] = {}
    for name in runtime.settings.alarms.sinks:
        sinks[name] = await runtime.driver("trivet_alarm_sinks", name)
        service.on_close(sinks[name].close)
    service.controller("alarms", AlarmController(service, kind, rules).run)
    if sinks:
        service.controller("alarm sinks", AlarmDeliveries(service, kind, sinks).run)


def serve_alarms(service: Service, kind: Kind[Alarm], operations: Crud[Alarm]) -> None:
    """Answer list, get and acknowledge."""
    alarms = service.collection(kind)
    verbs = [e for e in operations.endpoints if e.verb in ("list", "get")]
    serve_crud(service, Crud(kind, tuple(verbs)), Hooks[Alarm](admit=admit_anything))

    async def ack(request: AckRequest, call: Call) -> Alarm:
        key = kind.key(None, request.name)
        now = service.runtime.clock.now()

        def acknowledge(alarm: Alarm) -> Alarm:
            if alarm.status.state is not AlarmState.RAISED:
                raise Refused(INVALID, f"alarm {request.name} is cleared", hint="nothing is to do")
            spec = AlarmSpec(
                acknowledged_by=call.caller.user, acknowledged_at=now, note=request.note
            )
            known = alarm.with_spec(spec)
            return known.with_status(observed_generation=known.meta.generation)

        changed = await alarms.mutate(key, acknowledge)
        if changed is None:
            raise not_found(kind, request.name, None)
        return changed

    service.handle(operations.ack, ack)
