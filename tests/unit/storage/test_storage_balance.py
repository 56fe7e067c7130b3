"""Pools that fill unevenly: a balanced one is left alone, and moves come to an end."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.pool import PoolUsage
from trivet.contracts.storage.volume import (
    Attachment,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.balance import GAP, balance
from trivet.storage.domain.places import NodeView, Places
from trivet.storage.domain.space import Ledger, Member, SpaceClaim

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODES = ("n1", "n2", "n3")


def volume(name: str, size: int, *nodes: str, held: str = "") -> Volume:
    meta = Meta(id=ResourceId(f"volume-{name}"), name=name, project="p", created_at=NOW)
    replicas = tuple(Replica(node=n, disk="p", state=ReplicaState.IN_SYNC) for n in nodes)
    attachment = Attachment(holder="vm/1", node=held, epoch=1) if held else None
    status = VolumeStatus(
        phase=Phase.READY,
        replicas=replicas,
        claimed_bytes=size * GIB,
        size_bytes=size * GIB,
        attachment=attachment,
    )
    spec = VolumeSpec(size_gib=size, replicas=max(len(nodes), 1))
    return Volume(meta=meta, spec=spec, status=status)


def members(volumes: list[Volume]) -> list[Member]:
    made = []
    for node in NODES:
        ledger = Ledger()
        for v in volumes:
            if any(r.node == node for r in v.status.replicas):
                claim = SpaceClaim(key=v.meta.name, size_bytes=v.status.claimed_bytes)
                ledger = ledger.with_claim(v.meta.id, claim)
        made.append(Member(PoolUsage(node=node, size_bytes=100 * GIB, used_bytes=0), ledger, 1.0))
    return made


def test_a_balanced_pool_is_left_alone() -> None:
    volumes = [volume("a", 20, "n1"), volume("b", 20, "n2"), volume("c", 20, "n3")]
    assert balance(volumes, members(volumes), Places()) is None
    assert balance([], members([]), Places()) is None


def test_what_is_not_read_locally_goes_first() -> None:
    volumes = [volume("a", 20, "n1", held="n1"), volume("b", 10, "n1"), volume("c", 20, "n2")]
    move = balance(volumes, members(volumes), Places())
    assert move is not None
    assert (move.volume.meta.name, move.source, move.target) == ("b", "n1", "n3")
    assert "30%" in move.why


def test_nothing_is_moved_while_anything_else_is_to_be_done() -> None:
    volumes = [volume("a", 30, "n1"), volume("b", 10, "n1")]
    assert balance(volumes, members(volumes), Places()) is not None
    silent = Places({"n3": NodeView(silent_s=9)})
    assert balance(volumes, members(volumes), silent) is None
    (one,) = volumes[1].status.replicas
    moving = volumes[1].with_status(replicas=(one.model_copy(update={"moving": "x"}),))
    assert balance([volumes[0], moving], members(volumes), Places()) is None


VOLUMES = st.lists(
    st.tuples(st.integers(1, 20), st.sets(st.sampled_from(NODES), min_size=1)), max_size=12
)


@settings(max_examples=200)
@given(VOLUMES)
def test_moves_end_and_each_makes_nodes_more_alike(asked: list[tuple[int, set[str]]]) -> None:
    volumes = [volume(f"v{n}", size, *sorted(nodes)) for n, (size, nodes) in enumerate(asked)]
    for _ in range(50):
        move = balance(volumes, members(volumes), Places())
        if move is None:
            return
        before = sorted(m.promised_share() for m in members(volumes))
        assert before[-1] - before[0] > GAP
        nodes = {r.node for r in move.volume.status.replicas} - {move.source} | {move.target}
        assert len(nodes) == len(move.volume.status.replicas)
        name, size = move.volume.meta.name, move.volume.spec.size_gib
        moved = volume(name, size, *sorted(nodes))
        volumes = [moved if v.meta.id == moved.meta.id else v for v in volumes]
        after = sorted(m.promised_share() for m in members(volumes))
        assert sum(s * s for s in after) < sum(s * s for s in before) + 1e-12
    raise AssertionError("it never ends")
