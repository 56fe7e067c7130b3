"""What the failure of a host or a disk would do to a volume, as tables."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.outlook import Effect
from trivet.contracts.storage.volume import (
    Attachment,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.outlook import at_stake, outlook

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD, STALE = ReplicaState.IN_SYNC, ReplicaState.STALE


def on(node: str, state: ReplicaState = GOOD) -> Replica:
    return Replica(node=node, disk=f"{node}-a", state=state, size_bytes=GIB, since=NOW)


def volume(*replicas: Replica, held: str = "", name: str = "v") -> Volume:
    meta = Meta(id=ResourceId(f"volume-{name}"), name=name, project="p", created_at=NOW)
    attachment = Attachment(holder="vm/1", node=held, epoch=1) if held else None
    status = VolumeStatus(replicas=replicas, attachment=attachment)
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1), status=status)


N, R, U, L = Effect.NOTHING, Effect.REDUNDANCY, Effect.UNAVAILABLE, Effect.LOST
CASES = {
    "one": (volume(on("n1")), {"n1": U, "n1-a": L}),
    "two": (volume(on("n1"), on("n2")), {"n1": R, "n1-a": R, "n2": R, "n2-a": R}),
    "one good, one stale": (
        volume(on("n1"), on("n2", STALE)),
        {"n1": U, "n1-a": L, "n2": N, "n2-a": N},
    ),
    "none good": (volume(on("n2", STALE)), {"n2": N, "n2-a": N}),
    "held where none of it lies": (volume(on("n1"), held="n3"), {"n1": U, "n1-a": L, "n3": N}),
    "one is leaving": (
        volume(on("n1"), on("n2", ReplicaState.LEAVING)),
        {"n1": U, "n1-a": L},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_failure_does(case: str) -> None:
    given, expected = CASES[case]
    assert {o.disk or o.node: o.effect for o in outlook(given)} == expected


def test_older_copies_and_holders_are_named() -> None:
    told = {
        o.disk or o.node: o.message for o in outlook(volume(on("n1"), on("n2", STALE), held="n1"))
    }
    assert "n2 (stale since 2026-01-01 00:00:00 UTC)" in told["n1-a"]
    assert "vm/1 runs there" in told["n1"]


def test_the_worst_is_told_first() -> None:
    volumes = [volume(on("n1"), on("n2"), name="a"), volume(on("n1"), name="b")]
    assert [(v.volume, v.effect) for v in at_stake(volumes, "n1")] == [("b", U), ("a", R)]
    assert at_stake(volumes, "n3") == ()
