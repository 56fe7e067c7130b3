"""The group `default` that every project comes with, since ports name it where nobody chose.

A project is ready once it has it, and takes it along when it goes: that is what its finalizer
is for. What people have written into the group since is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.resource import Phase
from trivet.contracts.security.group import Protocol, Rule, SecurityGroup, SecurityGroupSpec
from trivet.contracts.security.identity import Project

DEFAULT_GROUP = "default"
FINALIZER = "security/default-group"

SPEC = SecurityGroupSpec(
    rules=(
        Rule(remote=f"group:{DEFAULT_GROUP}", comment="everything within the group"),
        Rule(protocol=Protocol.ICMP, comment="ping from anywhere"),
        Rule(protocol=Protocol.TCP, ports=("22",), comment="ssh from anywhere"),
    )
)


@dataclass(frozen=True)
class Make:
    """Make the group, with the rules that it comes with."""


@dataclass(frozen=True)
class Remove:
    """Remove the group of a project that goes."""


@dataclass(frozen=True)
class Record:
    """Store the project as it is to be."""

    project: Project


@dataclass(frozen=True)
class Finish:
    """Nothing of the project is left to let go of."""


Action = Make | Remove | Record | Finish


def plan(project: Project, group: SecurityGroup | None) -> tuple[Action, ...]:
    """What makes the project and its group what they are to be, one step after the other."""
    kept = tuple(f for f in project.meta.finalizers if f != FINALIZER)
    if project.meta.deleting_at is not None:
        removal: tuple[Action, ...] = (Remove(),) if group is not None else ()
        return (*removal, Finish()) if not kept else removal
    wanted = project.with_meta(finalizers=(*kept, FINALIZER)).with_status(
        phase=Phase.READY, observed_generation=project.meta.generation
    )
    making: tuple[Action, ...] = (Make(),) if group is None else ()
    return making if wanted == project else (*making, Record(wanted))
