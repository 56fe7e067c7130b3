"""Who is in a graph that is about to be made, and what is recorded before it is.

Every replica in sync was asked to serve under the epoch; those that answered are in. One that did
not is recorded as stale first, for it will miss writes. If the former graph did not end in order,
those that answered may differ in what was on the way: one of them is chosen to say what the volume
holds, the others are suspect until they were compared with it.

While the holder lives (it was told of an earlier graph of this epoch) it must find again what
it has seen: only a trusted replica may be chosen, and only one whose host has not started again
since, for such a one has lost what was acknowledged and not flushed. A new holder begins as
after a power cut, and may find what was not flushed or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.volume import Attachment, Graph, Replica, ReplicaState, Volume
from trivet.storage.domain.replication import (
    after_graph,
    graph_of,
    held_for_repair,
    left_out,
    trusted,
    with_all,
)
from trivet.storage.domain.volume_status import in_sync, with_attachment

SOON_S = 0.5


@dataclass(frozen=True)
class Choice:
    """The nodes of the members: those that `reads` come from, those that are `suspect`."""

    reads: frozenset[str]
    suspect: frozenset[str] = frozenset()


def begin_graph(
    volume: Volume, after: Graph, node: str, boots: Mapping[str, str], now: datetime
) -> Volume:
    """The volume with its next graph begun on `node`, after `after`; `boots` has the nodes that
    answered, and which run of their kernel that is. All that is in sync then is in the graph.

    Raises `Refused(CONFLICT)` where the volume is not in that graph there any more, and
    `Retry(NOT_READY)` where nobody answered that may be read.
    """
    held = volume.status.attachment
    if held is None or held.node != node or held.detaching or graph_of(volume) != after:
        raise Refused(CONFLICT, f"volume {volume.meta.name} is not held here in {after} any more")
    chosen = choose(volume, held, boots)
    following = Graph(epoch=after.epoch, number=after.number + 1)

    def change(replica: Replica) -> Replica:
        if replica.state is not ReplicaState.IN_SYNC:
            return after_graph(replica)
        here = replica.model_copy(update={"boot": boots.get(replica.node, "")})
        if replica.node in chosen.reads:
            return here.model_copy(update={"suspect": False, "left": None})
        if replica.node in chosen.suspect:
            since = replica.left if replica.suspect else following
            return here.model_copy(update={"suspect": True, "left": since})
        if replica.node in boots:
            return left_out(replica, "its host started again while the volume was in use", now)
        return left_out(replica, "it did not answer when the volume was attached", now)

    begun = with_all(volume.with_status(unclean=True), change)
    return with_attachment(begun, held.model_copy(update={"number": following.number}))


def choose(volume: Volume, held: Attachment, boots: Mapping[str, str]) -> Choice:
    """Who of those that answered is in the graph, and how. Raises `Retry(NOT_READY)`."""
    answered = [r for r in in_sync(volume) if r.node in boots]
    if not answered:
        raise _nobody(volume, "no replica that is in sync answers")
    lives = held.export is not None and not held_for_repair(held)
    if not volume.status.unclean:
        clean = frozenset(r.node for r in answered if not r.suspect)
        if clean:
            return Choice(clean, frozenset(r.node for r in answered) - clean)
    elif lives:
        answered = [r for r in answered if not _started_again(r, boots)]
    eligible = [r for r in answered if not r.suspect or _just_now(r, held, lives)]
    if not eligible and (lives or trusted(volume)):
        raise _nobody(volume, "the replica that says what it holds does not answer")
    chosen = min(
        eligible or answered,
        key=lambda r: (_started_again(r, boots), r.node != held.node, r.node),
    )
    return Choice(frozenset({chosen.node}), frozenset(r.node for r in answered) - {chosen.node})


def _just_now(replica: Replica, held: Attachment, lives: bool) -> bool:
    """Whether it became suspect in a graph that no holder has read from: then it is as good as
    the one that was chosen there."""
    return not lives and replica.left is not None and replica.left.epoch == held.epoch


def _started_again(replica: Replica, boots: Mapping[str, str]) -> bool:
    return bool(replica.boot and boots[replica.node] and boots[replica.node] != replica.boot)


def _nobody(volume: Volume, why: str) -> Retry:
    return Retry(NOT_READY, f"volume {volume.meta.name}: {why}", retry_after_s=SOON_S)
