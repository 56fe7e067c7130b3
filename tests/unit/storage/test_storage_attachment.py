"""Who may hold a volume, and when a new epoch begins."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import DELETING, Refused, Retry
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.codes import ATTACHED, NOT_READY
from trivet.contracts.storage.engine import AttachedVolume
from trivet.contracts.storage.volume import (
    Attachment,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.attachment import attach, attached, caught_up, detach, detached

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = Replica(node="n1", disk="p", state=ReplicaState.IN_SYNC, size_bytes=GIB)


def volume(held: Attachment | None = None, epoch: int = 3, deleting: bool = False) -> Volume:
    meta = Meta(
        id=ResourceId("volume-1"),
        name="v",
        project="p",
        created_at=NOW,
        deleting_at=NOW if deleting else None,
    )
    status = VolumeStatus(phase=Phase.READY, epoch=epoch, replicas=(GOOD,), attachment=held)
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1), status=status)


def held(**changes: object) -> Attachment:
    whole = Attachment(holder="vm/a", node="n1", epoch=3, socket="/s", export="e")
    return whole.model_copy(update=changes)


def seen(epoch: int, socket: str, export: str) -> AttachedVolume:
    return AttachedVolume(volume=ResourceId("volume-1"), epoch=epoch, socket=socket, export=export)


def test_a_free_volume_gets_a_new_epoch() -> None:
    made = attach(volume(), "vm/a", "n1", None)
    assert made.status.epoch == 4
    assert made.status.attachment == Attachment(holder="vm/a", node="n1", epoch=4)


@pytest.mark.parametrize("there", [held(), held(socket=None, export=None)])
def test_the_same_holder_gets_the_same_answer(there: Attachment) -> None:
    before = volume(there)
    assert attach(before, "vm/a", "n1", None) == before


@pytest.mark.parametrize(
    ("there", "node", "broken"),
    [(held(), "n2", 3), (held(), "n2", None), (held(detaching=True), "n1", None)],
    ids=["broken, and another node", "another node", "was ending"],
)
def test_a_new_epoch_begins(there: Attachment, node: str, broken: int | None) -> None:
    made = attach(volume(there), "vm/a", node, broken)
    assert made.status.attachment == Attachment(holder="vm/a", node=node, epoch=4)


def test_what_broke_is_made_again_in_its_epoch() -> None:
    """A guest that was paused by the failure goes on there, or nowhere."""
    made = attach(volume(held()), "vm/a", "n1", 3)
    assert made.status.attachment == held(socket=None)
    assert made.status.epoch == 3


@pytest.mark.parametrize(("there", "broken"), [(held(), 3), (held(socket=None), None)])
def test_what_broke_before_its_run_began_begins_anew(there: Attachment, broken: int | None) -> None:
    """All hosts lost power after the attachment was made and before the guest was: nobody has
    read what must be found again, so nobody has to wait for it for ever."""
    before = volume(there.model_copy(update={"run": 5}))
    made = attach(before, "vm/a", "n1", broken, run=5)
    assert made.status.attachment == Attachment(holder="vm/a", node="n1", epoch=4, run=5)
    assert attach(made, "vm/a", "n1", None, run=5) == made
    again = attach(before, "vm/a", "n1", broken)
    assert again.status.epoch == 3  # the guest runs


def test_an_old_breakage_does_not_end_a_newer_epoch() -> None:
    before = volume(held(epoch=4), epoch=4)
    assert attach(before, "vm/a", "n1", 3) == before


def test_another_holder_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        attach(volume(held()), "vm/b", "n1", None)
    assert refused.value.code is ATTACHED
    with pytest.raises(Retry):
        attach(volume(held(detaching=True)), "vm/b", "n1", None)


def test_a_volume_that_goes_or_is_not_there_yet() -> None:
    with pytest.raises(Refused) as refused:
        attach(volume(deleting=True), "vm/a", "n1", None)
    assert refused.value.code is DELETING
    with pytest.raises(Retry) as retry:
        attach(volume().with_status(replicas=()), "vm/a", "n1", None)
    assert retry.value.code is NOT_READY


def test_only_the_holder_detaches() -> None:
    before = volume(held())
    assert detach(before, "vm/b") == before
    ending = detach(before, "vm/a")
    assert detached(ending, "n2") == ending
    assert detached(ending, "n1").status.attachment is None
    assert detached(before, "n1") == before


def test_a_graph_of_an_older_epoch_is_not_recorded() -> None:
    before = volume(held(epoch=4, socket=None), epoch=4)
    assert attached(before, seen(3, "/old", "old")) == before
    done = attached(before, seen(4, "/new", "new")).status.attachment
    assert done is not None
    assert (done.socket, done.export) == ("/new", "new")


HOLDERS = st.sampled_from(["vm/a", "vm/b"])
NODES = st.sampled_from(["n1", "n2"])
STEPS = st.one_of(
    st.tuples(st.just("attach"), HOLDERS, NODES, st.booleans()),
    st.tuples(st.just("detach"), HOLDERS, NODES, st.booleans()),
    st.tuples(st.just("ended"), HOLDERS, NODES, st.booleans()),
)


@given(st.lists(STEPS, max_size=30))
def test_an_epoch_has_one_holder_for_ever(
    steps: list[tuple[str, str, str, bool]],
) -> None:
    now, owners = volume(), dict[int, tuple[str, str]]()
    for what, holder, node, broken in steps:
        before = now.status.epoch
        try:
            if what == "attach":
                now = attach(now, holder, node, before if broken else None)
            elif what == "detach":
                now = detach(now, holder)
            else:
                now = detached(now, node)
        except (Refused, Retry):
            continue
        assert now.status.epoch in (before, before + 1)
        there = now.status.attachment
        if there is not None:
            assert there.epoch == now.status.epoch
            owner = (there.holder, there.node)
            assert owners.setdefault(there.epoch, owner) == owner


def test_an_epoch_that_the_store_forgot_is_never_given_out_again() -> None:
    """The store was restored from a backup: replicas know of later epochs."""
    free = caught_up(volume(epoch=3), 7)
    assert attach(free, "vm/a", "n1", None).status.epoch == 8
    going_on = caught_up(volume(held()), 7)
    assert going_on.status.attachment == Attachment(holder="vm/a", node="n1", epoch=8)
    assert going_on.status.epoch == 8
    known = volume(held(epoch=9), epoch=9)
    assert caught_up(known, 7) == known
    assert caught_up(going_on, 7) == going_on
