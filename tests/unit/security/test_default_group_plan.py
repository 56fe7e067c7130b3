"""A project and the group that it comes with: what is done in each state, and that it ends."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.security.group import SecurityGroup, SecurityGroupStatus
from trivet.contracts.security.identity import Project, ProjectSpec, ProjectStatus
from trivet.security.domain.default_group import (
    FINALIZER,
    SPEC,
    Action,
    Finish,
    Make,
    Record,
    Remove,
    plan,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GROUP = SecurityGroup(
    meta=Meta(id=ResourceId("g"), name="default", project="p", created_at=NOW),
    spec=SPEC,
    status=SecurityGroupStatus(),
)


def project(finalizers: tuple[str, ...], *, deleting: bool = False, seen: int = 1) -> Project:
    return Project(
        meta=Meta(
            id=ResourceId("p"),
            name="p",
            created_at=NOW,
            finalizers=finalizers,
            deleting_at=NOW if deleting else None,
        ),
        spec=ProjectSpec(),
        status=ProjectStatus(phase=Phase.READY, observed_generation=seen),
    )


@pytest.mark.parametrize(
    ("before", "group", "kinds"),
    [
        (project((FINALIZER,)), GROUP, []),
        (project((FINALIZER,)), None, [Make]),
        (project(()), None, [Make, Record]),
        (project((FINALIZER,), seen=0), GROUP, [Record]),
        (project((FINALIZER,), deleting=True), GROUP, [Remove, Finish]),
        (project((), deleting=True), None, [Finish]),
        (project((FINALIZER, "x"), deleting=True), GROUP, [Remove]),
    ],
)
def test_what_is_done(before: Project, group: SecurityGroup | None, kinds: list[type]) -> None:
    assert [type(action) for action in plan(before, group)] == kinds


@pytest.mark.parametrize(
    ("finalizers", "deleting", "seen", "group"),
    list(product([(), (FINALIZER,), ("x",)], [False, True], [0, 1], [None, GROUP])),
)
def test_it_converges(
    finalizers: tuple[str, ...], deleting: bool, seen: int, group: SecurityGroup | None
) -> None:
    now: Project | None = project(finalizers, deleting=deleting, seen=seen)
    for _ in range(3):
        assert now is not None
        for action in plan(now, group):
            now, group = _done(action, now, group)
        if now is None:
            assert deleting
            return
    assert now is not None
    assert plan(now, group) == ()
    assert (group is None) is deleting


def _done(
    action: Action, now: Project | None, group: SecurityGroup | None
) -> tuple[Project | None, SecurityGroup | None]:
    match action:
        case Make():
            return now, GROUP
        case Remove():
            return now, None
        case Record(project=wanted):
            return wanted, group
        case Finish():
            return None, group
