"""Where a volume's replicas go, and why there.

Rules, in order: a node that holds a promise for this very volume keeps it (an earlier try was
cut); a copy is made where its source lies; never two replicas on one node; only where there is
space. Among what remains the nodes that the volume names come first, in its order, then those
with the most to promise; equal ones by name, so that the answer is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trivet.contracts.errors import Code
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import NO_SPACE, TOO_FEW_NODES
from trivet.storage.domain.space import Member, SpaceClaim


@dataclass(frozen=True)
class Wanted:
    """What is to be placed. `source_nodes` None: not a copy."""

    volume: ResourceId
    replicas: int
    claim: SpaceClaim
    nodes: tuple[str, ...] = ()
    source_nodes: frozenset[str] | None = None


@dataclass(frozen=True)
class Placement:
    """The nodes, best first, and a sentence for people."""

    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Unplaceable:
    """Why there is no place."""

    code: Code
    reason: str


def place(wanted: Wanted, members: Sequence[Member]) -> Placement | Unplaceable:
    """The nodes for all replicas of `wanted`, or why there are too few."""
    possible, refused = [], []
    for member in members:
        why = _refusal(wanted, member)
        if why is None:
            possible.append(member)
        else:
            refused.append(why)
    if len(members) < wanted.replicas:
        return Unplaceable(
            TOO_FEW_NODES,
            f"{wanted.replicas} replicas need as many nodes; the pool has {len(members)}",
        )
    if len(possible) < wanted.replicas:
        return Unplaceable(
            NO_SPACE,
            f"{wanted.replicas} wanted, {len(possible)} possible: {'; '.join(refused)}",
        )
    chosen = sorted(possible, key=lambda m: _rank(wanted, m))[: wanted.replicas]
    return Placement(
        tuple(m.node for m in chosen), "; ".join(_explained(wanted, m) for m in chosen)
    )


def _refusal(wanted: Wanted, member: Member) -> str | None:
    if wanted.source_nodes is not None and member.node not in wanted.source_nodes:
        return f"{member.node} has no replica of the source"
    return member.refusal(wanted.volume, wanted.claim)


def _rank(wanted: Wanted, member: Member) -> tuple[bool, int, int, str]:
    named = wanted.nodes.index(member.node) if member.node in wanted.nodes else len(wanted.nodes)
    kept = wanted.volume in member.ledger.claims
    return (not kept, named, -member.promisable_bytes, member.node)


def _explained(wanted: Wanted, member: Member) -> str:
    if wanted.volume in member.ledger.claims:
        return f"{member.node}: space was promised there before"
    if member.node in wanted.nodes:
        return f"{member.node}: asked for"
    if wanted.source_nodes is not None:
        return f"{member.node}: beside its source"
    return f"{member.node}: {member.promisable_bytes} bytes can be promised there"
