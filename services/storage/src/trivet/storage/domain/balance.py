"""Which replica is moved so that nodes of a pool fill alike: pure.

One at a time in the whole pool, and only where the fullest node has clearly more of its space
promised than the emptiest: a pool that is balanced is left alone, and so is one of which a node
is not well. A move never makes the emptier node the fuller one, so moves come to an end. What a
guest reads locally stays while anything else can be moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trivet.contracts.resource import Phase
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.storage.domain.places import Places
from trivet.storage.domain.space import Member

GAP = 0.2
"""How far apart the promised shares of two nodes may be."""


@dataclass(frozen=True)
class Move:
    """Move the replica of a volume."""

    volume: Volume
    source: str
    target: str
    why: str


def balance(volumes: Sequence[Volume], members: Sequence[Member], places: Places) -> Move | None:
    """The next move in a pool whose `volumes` and `members` these are; None: it is balanced, or
    something else is to be done first."""
    if len(members) < 2 or any(places.node(m.node).refusal(m.node) for m in members):
        return None
    if not all(_is_calm(volume) for volume in volumes):
        return None
    by_share = sorted(members, key=lambda m: (m.promised_share(), m.node))
    low, high = by_share[0], by_share[-1]
    if high.promised_share() - low.promised_share() <= GAP:
        return None
    movable = [v for v in volumes if _helps(v, high, low)]
    if not movable:
        return None

    def rank(volume: Volume) -> tuple[bool, int, str]:
        held = volume.status.attachment
        local = held is not None and held.node == high.node
        return (local, -volume.status.claimed_bytes, volume.meta.id)

    chosen = min(movable, key=rank)
    shares = f"{high.promised_share():.0%} of {high.node}, {low.promised_share():.0%} of {low.node}"
    why = f"promised are {shares}"
    return Move(chosen, high.node, low.node, why)


def _is_calm(volume: Volume) -> bool:
    """Whether nothing else is on its way with it."""
    if volume.meta.deleting_at is not None or volume.status.phase is Phase.FAILED:
        return True
    return all(
        r.state is ReplicaState.IN_SYNC and not r.moving and not r.suspect
        for r in volume.status.replicas
    )


def _helps(volume: Volume, high: Member, low: Member) -> bool:
    """Whether its move from one to the other makes them more alike, and does not turn them."""
    if volume.meta.deleting_at is not None or volume.status.phase is not Phase.READY:
        return False
    if volume.status.reverting is not None or high.node in volume.spec.nodes:
        return False
    nodes = {r.node for r in volume.status.replicas}
    if high.node not in nodes or low.node in nodes:
        return False
    size = volume.status.claimed_bytes
    after_high = high.promised_share() - size / (high.usage.size_bytes * high.overcommit)
    after_low = low.promised_share() + size / (low.usage.size_bytes * low.overcommit)
    return after_low <= after_high
