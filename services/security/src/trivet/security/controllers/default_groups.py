"""Keeps a group `default` in every project; a project that is deleted goes with it."""

from __future__ import annotations

from trivet.contracts.errors import NAME_TAKEN, Refused
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.security.group import SecurityGroup, SecurityGroupStatus
from trivet.contracts.security.identity import Project
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Runtime
from trivet.security.domain.default_group import (
    DEFAULT_GROUP,
    SPEC,
    Action,
    Finish,
    Make,
    Record,
    Remove,
    plan,
)
from trivet.security.parts import People


class DefaultGroups:
    """Reconciles projects with the group that each of them comes with."""

    def __init__(self, runtime: Runtime, people: People, groups: Collection[SecurityGroup]) -> None:
        self._runtime = runtime
        self._projects = people.projects
        self._groups = groups
        self._reconciler = Reconciler(
            "default group",
            self._reconcile,
            clock=runtime.clock,
            keys=self._projects.keys,
            resync_s=runtime.settings.security.look_s,
        )
        self._projects.on_change(self._reconciler.wake)
        groups.on_change(self._group_changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._reconciler.run()

    def _group_changed(self, key: str) -> None:
        _, project, name = key.split(".", 2)
        if name == DEFAULT_GROUP:
            self._reconciler.wake(self._projects.kind.key(None, project))

    async def _reconcile(self, key: str) -> float | None:
        project = await self._projects.fresh(key)
        if project is None:
            return None
        group = await self._groups.fresh(self._groups.kind.key(project.meta.name, DEFAULT_GROUP))
        for action in plan(project, group):
            await self._do(action, project, group)
        return None

    async def _do(self, action: Action, project: Project, group: SecurityGroup | None) -> None:
        match action:
            case Make():
                await make_default_group(self._runtime, self._groups, project.meta.name)
            case Remove() if group is not None:
                await self._groups.remove(group)
            case Record(project=wanted):
                await self._projects.write(project, wanted)
            case Finish():
                await self._projects.remove(project)


async def make_default_group(
    runtime: Runtime, groups: Collection[SecurityGroup], project: str
) -> None:
    """Make the project's group `default`, unless it is there."""
    meta = Meta(
        id=new_id("security-group"),
        name=DEFAULT_GROUP,
        project=project,
        created_at=runtime.clock.now(),
    )
    status = SecurityGroupStatus(phase=Phase.READY, observed_generation=1)
    try:
        await groups.create(SecurityGroup(meta=meta, spec=SPEC, status=status))
    except Refused as error:
        if error.code is not NAME_TAKEN:
            raise
