"""Bugs of the protocol's own kind, each planted in the code that decides or acts.

A checker that no bug can alarm proves nothing. Each of these breaks one thing that the protocol
rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.simulation import sim_graph, sim_guest, sim_machine, sim_node

from trivet.contracts.storage.volume import Graph, Missing, Replica, ReplicaState, Volume
from trivet.storage.domain import attachment, graph_plan, new_graph, replication
from trivet.storage.node import comparison, graph_effects

Bug = Callable[[], Any]
BUGS: dict[str, Bug] = {}
FOUND_BY: dict[str, int] = {
    "a failed member is dropped and recorded later": 1,
    "a failed member is dropped though the store refused": 7,
    "the last copy is given up": 7,
    "a suspect that fails is to get only the changes": 490,
    "a former holder may still record": 7,
    "one vote less than members is enough": 1,
    "who did not answer stays in sync": 0,
    "a stale replica is served as good": 44,
    "an epoch is given out twice": 7,
    "servers of older epochs live on": 2,
    "a server outlives its client in the same epoch": 175,
    "nobody is suspect after an unclean end": 1,
    "a suspect is read": 34,
    "a suspect is chosen while the other is silent": 1092,
    "a graph is not recorded as begun": 0,
    "every end is taken for one in order": 83,
    "a host that started again is believed": 89,
    "changes are believed after the graph is made again": 41,
    "a checkpoint forgets without a flush": 11,
    "a checkpoint forgets what somebody wants": 185,
    "what was copied is recorded unflushed": 448,
    "a copy that runs is taken for done": 2,
    "a copy begins before the replica gets writes": 22,
    "a copy does not keep the order with writes": 118,
    "an earlier copy is believed when a member comes again": 5,
    "differences are found and not copied": 0,
    "a member is read before it has everything": 1185,
    "a replica is recorded in sync that is no member": 0,
}
"""Seeds that have found them."""


def bug(make: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    BUGS[make.__name__.replace("_", " ")] = make
    return make


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with that bug."""
    patches = BUGS[name]()
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in reversed(patches):
            one.stop()


# --- who leaves ------------------------------------------------------------------------------


@bug
def a_failed_member_is_dropped_and_recorded_later() -> list[Any]:
    lose = graph_effects.GraphEffects._lose

    async def drop_first(self: Any, volume: Volume, graph: Graph, node: str, *how: Any) -> None:
        await self._drop(volume.meta.id, node)
        await self._clock.sleep(0.3)
        await lose(self, volume, graph, node, *how)

    return [patch.object(graph_effects.GraphEffects, "_lose", drop_first)]


@bug
def a_failed_member_is_dropped_though_the_store_refused() -> list[Any]:
    async def regardless(
        self: Any, volume: Volume, graph: Graph, node: str, healthy: Any, *how: Any
    ) -> None:
        now = self._clock.now()
        await self._write(
            volume, lambda v: replication.record_lost(v, graph, node, healthy, "", now)
        )
        await self._drop(volume.meta.id, node)

    everybody = patch.object(
        graph_plan,
        "_give_up",
        lambda v: tuple(graph_plan.RecordLost(n, v.healthy) for n in v.failed),
    )
    return [patch.object(graph_effects.GraphEffects, "_lose", regardless), everybody]


@bug
def the_last_copy_is_given_up() -> list[Any]:
    def whoever_is_left(volume: Volume, graph: Graph, node: str, *rest: Any, **how: Any) -> Volume:
        if replication.graph_of(volume) != graph:
            return volume
        lost = {"state": ReplicaState.STALE, "missing": Missing.DIFFERENCES, "suspect": False}
        return replication.with_replica(volume, node, lambda r: r.model_copy(update=lost))

    everybody = patch.object(
        graph_plan,
        "_give_up",
        lambda v: tuple(graph_plan.RecordLost(n, v.healthy) for n in v.failed),
    )
    return [patch.object(graph_effects, "record_lost", whoever_is_left), everybody]


@bug
def a_suspect_that_fails_is_to_get_only_the_changes() -> list[Any]:
    def without_suspicion(r: Replica, missing: Missing, left: Any, *rest: Any) -> Replica:
        doubtful = r.suspect and left is not None
        return stale(r, Missing.CHANGES if doubtful else missing, left, *rest)

    stale = replication._stale
    return [patch.object(replication, "_stale", without_suspicion)]


@bug
def a_former_holder_may_still_record() -> list[Any]:
    """Neither the epoch nor who would be left is looked at."""

    async def anybody(self: Any, volume: Volume, graph: Graph, node: str, *how: Any) -> None:
        lost = {"state": ReplicaState.STALE, "missing": Missing.DIFFERENCES, "suspect": False}
        change = replication.with_replica
        await self._write(volume, lambda v: change(v, node, lambda r: r.model_copy(update=lost)))
        await self._drop(volume.meta.id, node)

    everybody = patch.object(
        graph_plan,
        "_give_up",
        lambda v: tuple(graph_plan.RecordLost(n, v.healthy) for n in v.failed),
    )
    return [patch.object(graph_effects.GraphEffects, "_lose", anybody), everybody]


@bug
def one_vote_less_than_members_is_enough() -> list[Any]:
    return [patch.object(sim_graph.Graph, "votes_spare", 1)]


# --- new holders -----------------------------------------------------------------------------


@bug
def who_did_not_answer_stays_in_sync() -> list[Any]:
    def kept(replica: Replica, reason: str, now: Any) -> Replica:
        return replica.model_copy(update={"boot": "silent"})

    def there(volume: Volume) -> tuple[Replica, ...]:
        return tuple(r for r in in_sync(volume) if r.boot != "silent")

    in_sync = graph_effects.in_sync
    return [
        patch.object(new_graph, "left_out", kept),
        patch.object(graph_effects, "in_sync", there),
        patch.object(graph_plan, "in_sync", there),
    ]


@bug
def a_stale_replica_is_served_as_good() -> list[Any]:
    def all_there(volume: Volume) -> tuple[Replica, ...]:
        good = (ReplicaState.IN_SYNC, ReplicaState.STALE)
        return tuple(r for r in volume.status.replicas if r.state in good)

    def as_good(volume: Volume, *rest: Any) -> Volume:
        good = {"state": ReplicaState.IN_SYNC, "missing": Missing.NOTHING}
        cured = [
            r.model_copy(update=good) if r.state is ReplicaState.STALE else r
            for r in volume.status.replicas
        ]
        return begin(volume.with_status(replicas=tuple(cured)), *rest)

    begin = graph_effects.begin_graph
    return [
        patch.object(graph_effects, "in_sync", all_there),
        patch.object(graph_effects, "begin_graph", as_good),
    ]


@bug
def an_epoch_is_given_out_twice() -> list[Any]:
    def again(volume: Volume, holder: str, node: str, broken_epoch: Any, **rest: Any) -> Volume:
        made = attach(volume, holder, node, broken_epoch, **rest)
        held = made.status.attachment
        if held is None or made.status.epoch == volume.status.epoch or volume.status.epoch == 0:
            return made
        same = held.model_copy(update={"epoch": volume.status.epoch})
        return made.with_status(epoch=volume.status.epoch, attachment=same)

    from tests.simulation import sim_cluster

    attach = attachment.attach
    serve = sim_machine.Machine.serve
    lasting = patch.object(
        sim_machine.Machine, "serve", lambda m, epoch, fresh: serve(m, epoch, False)
    )
    return [
        patch.object(sim_cluster, "attach", again),
        patch.object(sim_guest, "attach", again),
        lasting,
    ]


@bug
def servers_of_older_epochs_live_on() -> list[Any]:
    def serve(self: Any, epoch: int, fresh: bool) -> Any:
        self.world.servers += 1
        self.server = sim_machine.Server(epoch, self.world.servers)
        return self.server

    return [patch.object(sim_machine.Machine, "serve", serve)]


@bug
def a_server_outlives_its_client_in_the_same_epoch() -> list[Any]:
    serve = sim_machine.Machine.serve
    return [
        patch.object(sim_machine.Machine, "serve", lambda m, epoch, fresh: serve(m, epoch, False))
    ]


@bug
def nobody_is_suspect_after_an_unclean_end() -> list[Any]:
    def all_read(volume: Volume, held: Any, boots: Any) -> Any:
        chosen = choose(volume, held, boots)
        return new_graph.Choice(chosen.reads | chosen.suspect)

    choose = new_graph.choose
    return [patch.object(new_graph, "choose", all_read)]


@bug
def a_suspect_is_read() -> list[Any]:
    async def attach(self: Any, spec: Any) -> Any:
        replicas = tuple(reversed(spec.replicas))
        changes = {"writes_only": frozenset(), "replicas": replicas}
        return await original(self, spec.model_copy(update=changes))

    original = sim_graph.SimEngine.attach
    return [patch.object(sim_graph.SimEngine, "attach", attach)]


@bug
def a_suspect_is_chosen_while_the_other_is_silent() -> list[Any]:
    def eligible(replica: Replica, held: Any, lives: bool) -> bool:
        return True

    return [patch.object(new_graph, "_just_now", eligible), _slow_comparisons()]


def _slow_comparisons() -> Any:
    async def slowly(self: Any, *arguments: Any) -> None:
        await self._clock.sleep(2.0)
        await piece(self, *arguments)

    piece = comparison.Comparisons._piece
    return patch.object(comparison.Comparisons, "_piece", slowly)


@bug
def a_graph_is_not_recorded_as_begun() -> list[Any]:
    def unrecorded(volume: Volume, *rest: Any) -> Volume:
        return begin(volume.with_status(unclean=False), *rest).with_status(unclean=False)

    begin = graph_effects.begin_graph
    return [patch.object(graph_effects, "begin_graph", unrecorded)]


@bug
def every_end_is_taken_for_one_in_order() -> list[Any]:
    def cleaned(volume: Volume, node: str) -> Volume:
        return detached(volume.with_status(unclean=False), node)

    async def always(self: Any, volume: Any) -> bool:
        await detach(self, volume)
        return True

    detached, detach = attachment.detached, sim_graph.SimEngine.detach
    return [
        patch.object(sim_node, "detached", cleaned),
        patch.object(sim_graph.SimEngine, "detach", always),
    ]


@bug
def a_host_that_started_again_is_believed() -> list[Any]:
    return [patch.object(new_graph, "_started_again", lambda replica, boots: False)]


# --- coming back -----------------------------------------------------------------------------


@bug
def changes_are_believed_after_the_graph_is_made_again() -> list[Any]:
    return [
        patch.object(new_graph, "after_graph", _still_changes),
        patch.object(replication, "missing_now", lambda volume, r: r.missing),
        patch.object(graph_plan, "missing_now", lambda volume, r: r.missing),
    ]


def _still_changes(replica: Replica) -> Replica:
    stale = replica.state is ReplicaState.REBUILDING
    return replica.model_copy(update={"state": ReplicaState.STALE}) if stale else replica


@bug
def a_checkpoint_forgets_without_a_flush() -> list[Any]:
    async def nothing(self: Any, graph: Any) -> None:
        return None

    return [patch.object(sim_graph.SimEngine, "_flush_all", nothing)]


@bug
def a_checkpoint_forgets_what_somebody_wants() -> list[Any]:
    return [patch.object(graph_plan._View, "changes_wanted", lambda self, besides="": False)]


@bug
def what_was_copied_is_recorded_unflushed() -> list[Any]:
    apply = graph_effects.GraphEffects.apply

    async def careless(self: Any, volume: Volume, action: Any) -> None:
        if action != graph_plan.Flush(forget=False):
            await apply(self, volume, action)

    return [patch.object(graph_effects.GraphEffects, "apply", careless)]


@bug
def a_copy_that_runs_is_taken_for_done() -> list[Any]:
    def begun(view: Any, replica: Replica) -> bool:
        copied = view.seen.copies.get(replica.node) is not None
        return copied or done(view, replica)

    done = graph_plan._is_done
    return [patch.object(graph_plan, "_is_done", begun)]


@bug
def a_copy_begins_before_the_replica_gets_writes() -> list[Any]:
    """It is copied to by what is there now, and admitted when that is done."""

    async def late(self: Any, volume: Any, served: Any) -> None:
        graph = self._whole()
        content = [await graph.read(b) for b in range(sim_machine.BLOCKS)]
        await admit(self, volume, served)
        graph.early = content

    async def from_then(self: Any, node: str, blocks: list[int]) -> None:
        member = self.members[node]
        for block in blocks:
            early = getattr(self, "early", None)
            value = early[block] if early else await self._read(block)
            await self._put_there(member, node, block, value)
        self.copies[node].state = sim_graph.CopyState.DONE

    admit = sim_graph.SimEngine.admit
    return [
        patch.object(sim_graph.SimEngine, "admit", late),
        patch.object(sim_graph.Graph, "_copy", from_then),
    ]


@bug
def a_copy_does_not_keep_the_order_with_writes() -> list[Any]:
    async def unordered(self: Any, node: str, blocks: list[int]) -> None:
        member = self.members[node]
        for block in blocks:
            value = await self._read(block)
            await self._put_there(member, node, block, value)
        self.copies[node].state = sim_graph.CopyState.DONE

    return [patch.object(sim_graph.Graph, "_copy", unordered)]


@bug
def an_earlier_copy_is_believed_when_a_member_comes_again() -> list[Any]:
    return [patch.object(sim_graph.Graph, "end_copy", lambda self, node: None)]


@bug
def differences_are_found_and_not_copied() -> list[Any]:
    return [patch.object(comparison, "differing", lambda one, other, end: ())]


@bug
def a_member_is_read_before_it_has_everything() -> list[Any]:
    def early(view: Any) -> Any:
        writes = [n for n, s in view.there.members.items() if s is graph_plan.MemberState.WRITES]
        return tuple(graph_plan.Promote(n) for n in writes) + tuple(rung(view))

    rung = graph_plan._take_for_good
    return [patch.object(graph_plan, "_take_for_good", early)]


@bug
def a_replica_is_recorded_in_sync_that_is_no_member() -> list[Any]:
    return [patch.object(sim_graph.SimEngine, "admit", _admit_nothing), *_believed()]


async def _admit_nothing(self: Any, volume: Any, served: Any) -> None:
    return None


def _believed() -> list[Any]:
    def recorded(view: Any) -> Any:
        outside = view.replicas(ReplicaState.REBUILDING)
        return tuple(graph_plan.RecordInSync(r.node) for r in outside)

    def same(volume: Volume, held: Any, there: Any) -> bool:
        return not there.healthy or there.number != held.number

    return [
        patch.object(graph_plan, "_take_for_good", recorded),
        patch.object(graph_plan, "_is_another", same),
    ]
