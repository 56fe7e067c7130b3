"""Where a volume's replicas go, and why there.

Rules, in order: a place that holds a promise for this very volume keeps it (an earlier try was
cut); a copy is made where its source lies; never two replicas on one node; nothing new on a node
that is silent, in maintenance or being emptied, or on a disk that is not well; only where there
is space. Among what remains the nodes that the volume names come first, in its order, then the
one where its holder runs (reads are local there), then those of which the least share is
promised, so that nodes and disks fill alike; a disk that is warned of comes after all others.
Equal ones go by name, so that the answer is the same each time. On a node with several disks the
same rules choose the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trivet.contracts.errors import Code
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import NO_SPACE, TOO_FEW_NODES
from trivet.contracts.storage.disk import DiskHealth
from trivet.contracts.storage.volume import Volume
from trivet.storage.domain.places import Places
from trivet.storage.domain.space import Member, SpaceClaim


@dataclass(frozen=True)
class Wanted:
    """What is to be placed. `source_nodes` None: not a copy. `near`: where its holder runs.
    `not_on`: nodes that can't be, and why."""

    volume: ResourceId
    replicas: int
    claim: SpaceClaim
    nodes: tuple[str, ...] = ()
    source_nodes: frozenset[str] | None = None
    near: str = ""
    not_on: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spot:
    """A place for one replica; `disk` '': the node's part of the pool is no disks."""

    node: str
    disk: str = ""


@dataclass(frozen=True)
class Placement:
    """The places, best first, and a sentence for people."""

    spots: tuple[Spot, ...]
    reason: str

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes, best first."""
        return tuple(spot.node for spot in self.spots)


@dataclass(frozen=True)
class Unplaceable:
    """Why there is no place."""

    code: Code
    reason: str


@dataclass(frozen=True)
class _Candidate:
    member: Member
    spot: Spot
    warned: bool


def place(
    wanted: Wanted, members: Sequence[Member], places: Places | None = None
) -> Placement | Unplaceable:
    """The places for all replicas of `wanted`, or why there are too few."""
    possible: list[_Candidate] = []
    refused: list[str] = []
    for member in members:
        found = _on_member(wanted, member, places or Places())
        if isinstance(found, str):
            refused.append(found)
        else:
            possible.append(found)
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
    chosen = sorted(possible, key=lambda c: _rank(wanted, c))[: wanted.replicas]
    return Placement(
        tuple(c.spot for c in chosen), "; ".join(_explained(wanted, c) for c in chosen)
    )


def candidates(
    wanted: Wanted, members: Sequence[Member], places: Places | None = None
) -> dict[str, str]:
    """Every node, and why it would be taken or not: what an operator asks when a place is odd."""
    told: dict[str, str] = {}
    for member in members:
        found = _on_member(wanted, member, places or Places())
        told[member.node] = found if isinstance(found, str) else _explained(wanted, found)
    return told


def _on_member(wanted: Wanted, member: Member, places: Places) -> _Candidate | str:
    """The best place on a node, or why there is none."""
    node = member.node
    if node in wanted.not_on:
        return f"{node}: {wanted.not_on[node]}"
    if wanted.source_nodes is not None and node not in wanted.source_nodes:
        return f"{node} has no replica of the source"
    if (why := places.node(node).refusal(node)) is not None:
        return why
    if not member.usage.disks:
        refusal = member.refusal(wanted.volume, wanted.claim)
        return refusal or _Candidate(member, Spot(node), warned=False)
    had = member.ledger.claims.get(wanted.volume)
    found: list[tuple[tuple[bool, bool, float, str], _Candidate]] = []
    refusals: list[str] = []
    for usage in member.usage.disks:
        name = usage.disk
        view = places.disk(name)
        claim = wanted.claim.model_copy(update={"disk": name})
        why = view.refusal(name) or member.refusal(wanted.volume, claim)
        if why is not None:
            refusals.append(why)
            continue
        warned = view.health is DiskHealth.WARNED
        kept = had is not None and had.disk == name
        rank = (not kept, warned, member.promised_share(name), name)
        found.append((rank, _Candidate(member, Spot(node, name), warned)))
    if not found:
        return f"{node}: {', '.join(refusals)}"
    return min(found, key=lambda pair: pair[0])[1]


def _rank(wanted: Wanted, candidate: _Candidate) -> tuple[bool, int, bool, bool, float, str]:
    node = candidate.spot.node
    named = wanted.nodes.index(node) if node in wanted.nodes else len(wanted.nodes)
    kept = wanted.volume in candidate.member.ledger.claims
    share = candidate.member.promised_share(candidate.spot.disk)
    return (not kept, named, candidate.warned, node != wanted.near, share, node)


def _explained(wanted: Wanted, candidate: _Candidate) -> str:
    node, disk = candidate.spot.node, candidate.spot.disk
    where = f"{node} {disk}" if disk else node
    if wanted.volume in candidate.member.ledger.claims:
        return f"{where}: space was promised there before"
    if node in wanted.nodes:
        return f"{where}: asked for"
    if wanted.source_nodes is not None:
        return f"{where}: beside its source"
    if node == wanted.near:
        return f"{where}: where its holder runs"
    return f"{where}: {candidate.member.promised_share(disk):.0%} of it is promised"


def claim_at(claim: SpaceClaim, spot: Spot) -> SpaceClaim:
    """The claim as it is made at a place."""
    return claim.model_copy(update={"disk": spot.disk})


def first_replicas(volume: Volume, source_nodes: frozenset[str] | None) -> int:
    """With how many replicas a volume begins. A copy begins where its source lies; one of a
    volume that may be written to meanwhile with one replica, for two would be copied at two
    moments and differ. The others are brought in sync with the first, as any new replica is."""
    if source_nodes is None:
        return volume.spec.replicas
    if volume.status.source_snapshot is None:
        return 1
    return max(1, min(volume.spec.replicas, len(source_nodes)))


def wanted_beside(volume: Volume, key: str, busy: dict[str, str]) -> Wanted:
    """One replica more of a volume, on a node that has none of it."""
    held = volume.status.attachment
    there = {r.node: "has a replica of it already" for r in volume.status.replicas}
    claim = SpaceClaim(key=key, size_bytes=volume.status.claimed_bytes, thin=volume.spec.thin)
    return Wanted(
        volume=volume.meta.id,
        replicas=1,
        claim=claim,
        nodes=volume.spec.nodes,
        near=held.node if held else "",
        not_on={**busy, **there},
    )
