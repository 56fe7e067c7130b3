"""What would become of a volume if a host or a disk failed now: pure.

Counted are the replicas that have every acknowledged write by the record; a stale one saves
nothing that was acknowledged. A host's failure leaves its disks: what lies there alone is
unavailable until it returns. A disk's failure does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from trivet.contracts.storage.endpoints.node_outlook import VolumeAtStake
from trivet.contracts.storage.outlook import Effect, Outlook
from trivet.contracts.storage.volume import Replica, ReplicaState, Volume
from trivet.storage.domain.volume_status import in_sync, replica_on

_NOTHING_THERE = (ReplicaState.LOST, ReplicaState.LEAVING)
_WORST_FIRST = tuple(reversed(Effect))


def outlook(volume: Volume) -> tuple[Outlook, ...]:
    """For each host and disk that the volume lies on, and the host that holds it, by name."""
    good, held = in_sync(volume), volume.status.attachment
    placed = [r for r in volume.status.replicas if r.state not in _NOTHING_THERE]
    hosts = {r.node for r in placed} | ({held.node} if held else set())
    told = [_of_host(volume, good, node) for node in sorted(hosts)]
    told += [_of_disk(volume, good, r) for r in sorted(placed, key=lambda r: (r.node, r.disk))]
    return tuple(told)


def with_outlook(volume: Volume) -> Volume:
    """The volume as it is shown."""
    status = volume.status.model_copy(update={"outlook": outlook(volume)})
    return volume.model_copy(update={"status": status})


def _of_host(volume: Volume, good: tuple[Replica, ...], node: str) -> Outlook:
    left = [r for r in good if r.node != node]
    held = volume.status.attachment
    effect = _effect(good, left, Effect.UNAVAILABLE)
    message = _sentence(effect, len(good), len(left), f"until {node} returns")
    if held is not None and held.node == node:
        message += f"; its holder {held.holder} runs there"
    return Outlook(node=node, effect=effect, good_left=len(left), message=message)


def _of_disk(volume: Volume, good: tuple[Replica, ...], there: Replica) -> Outlook:
    left = [r for r in good if r.node != there.node]
    effect = _effect(good, left, Effect.LOST)
    message = _sentence(effect, len(good), len(left), "")
    others = [r for r in volume.status.replicas if r.node != there.node and r not in good]
    if effect is Effect.LOST and (old := [r for r in others if r.state is ReplicaState.STALE]):
        message += "; older copies: " + ", ".join(_age(r) for r in old)
    disk = there.disk
    return Outlook(node=there.node, disk=disk, effect=effect, good_left=len(left), message=message)


def _effect(good: tuple[Replica, ...], left: list[Replica], none_left: Effect) -> Effect:
    if len(left) == len(good):
        return Effect.NOTHING
    return Effect.REDUNDANCY if left else none_left


def _sentence(effect: Effect, had: int, left: int, until: str) -> str:
    match effect:
        case Effect.NOTHING:
            return f"nothing: {had} good copies are elsewhere" if had else "nothing more"
        case Effect.REDUNDANCY:
            return f"{left} of {had} good copies are left"
        case Effect.UNAVAILABLE:
            return f"unavailable {until}"
        case Effect.LOST:
            return "lost: it is the last good copy"


def _age(replica: Replica) -> str:
    since = f" since {replica.since:%Y-%m-%d %H:%M:%S} UTC" if replica.since else ""
    return f"{replica.node} (stale{since})"


def at_stake(volumes: Iterable[Volume], node: str) -> tuple[VolumeAtStake, ...]:
    """The volumes that lie on a node, or are held there, and what its failure would do to them;
    the worst first."""
    rows = [
        VolumeAtStake(
            project=volume.meta.project or "",
            volume=volume.meta.name,
            effect=told.effect,
            good_left=told.good_left,
            message=told.message,
        )
        for volume in volumes
        if _concerns(volume, node)
        for told in (_of_host(volume, in_sync(volume), node),)
    ]
    return tuple(
        sorted(rows, key=lambda r: (_WORST_FIRST.index(r.effect), r.good_left, r.project, r.volume))
    )


def _concerns(volume: Volume, node: str) -> bool:
    held = volume.status.attachment
    there = replica_on(volume, node)
    lies_there = there is not None and there.state is not ReplicaState.LEAVING
    return lies_there or (held is not None and held.node == node)
