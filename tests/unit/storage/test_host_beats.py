"""Where a host is asked whether it is there: at its server while that is in a graph, or by bus."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.storage.test_replication_domain import volume

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.replication import Failed, MemberFailure
from trivet.storage.domain.reach import not_waited_for
from trivet.storage.node.reach import REFUSED_S, HostBeats


class Engine:
    """A server that never greets."""

    def __init__(self) -> None:
        self.broken_off: list[str] = []

    async def greets(self, served: ServedReplica) -> bool:
        return False

    async def break_off(self, volume: ResourceId, node: str) -> None:
        self.broken_off.append(node)


async def test_a_server_that_is_broken_off_is_not_asked_again() -> None:
    """Its host answers on the bus, and its replica may come back."""
    now, engine, held = [0.0], Engine(), [volume("good", "good")]

    async def call(*asked: Any, **how: Any) -> None:
        return None

    clock = SimpleNamespace(monotonic=lambda: now[0])
    runtime = SimpleNamespace(node="n1", clock=clock, client=SimpleNamespace(call=call))
    beats = HostBeats(cast(Any, runtime), cast(Any, engine), lambda: held, lambda _: None, 2.0)
    served = ServedReplica(
        volume=held[0].meta.id, epoch=3, export="e", socket="/s", port=1, node="n2"
    )
    beats.note_served(served)
    for at in range(4):
        now[0] = float(at)
        await beats._beat("n2", held)
    assert engine.broken_off == ["n2"]
    assert beats.of(held[0])["n2"].silent_s < 2.0
    now[0] = 10.0
    await beats._beat("n2", held)
    assert beats.of(held[0])["n2"].settled


async def test_whom_to_ask_is_found_where_a_graph_is_older_than_this_process() -> None:
    """By bus its host would seem to be there, with its data path cut."""
    now, held, woken = [0.0], [volume("good", "good")], list[ResourceId]()
    id_ = held[0].meta.id
    old = ServedReplica(volume=id_, epoch=3, export="e", socket="", port=1, node="n2")

    class Found(Engine):
        async def servers(self, volume: ResourceId) -> tuple[ServedReplica, ...]:
            return (old,)

    async def call(*asked: Any, **how: Any) -> None:
        return None

    async def sleep(seconds: float) -> None:
        now[0] += 1.0
        if now[0] > 4:
            raise asyncio.CancelledError

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    runtime = SimpleNamespace(node="n1", clock=clock, client=SimpleNamespace(call=call))
    engine = Found()
    beats = HostBeats(cast(Any, runtime), cast(Any, engine), lambda: held, woken.append, 2.0)
    with pytest.raises(asyncio.CancelledError):
        await beats.run()
    assert engine.broken_off == ["n2"]
    assert id_ in woken


def test_who_is_of_no_use_is_broken_off_while_another_can_be_read() -> None:
    """A server that greets, and refuses writes or can't reach its disk."""
    both = volume("good", "good")
    assert not_waited_for(both, {"n2"}, ()) == ("n2",)
    assert not_waited_for(both, {"n1", "n2"}, ()) == ()
    assert not_waited_for(both, {"n2"}, ["n1"]) == ()
    assert not_waited_for(volume("good", "suspect"), {"n1"}, ()) == ()
    assert not_waited_for(volume("good", "coming", "changes"), {"n2", "n3"}, ()) == ("n2",)


async def test_one_that_refused_writes_is_taken_back_after_a_while() -> None:
    now, engine, held = [10.0], Engine(), [volume("good", "good")]
    silent_disks: set[str] = set()
    runtime = SimpleNamespace(node="n1", clock=SimpleNamespace(monotonic=lambda: now[0]))
    beats = HostBeats(
        cast(Any, runtime),
        cast(Any, engine),
        lambda: held,
        lambda _: None,
        2.0,
        lambda disk: disk not in silent_disks,
    )
    (id_,) = [v.meta.id for v in held]
    await beats._leave_unwell(held[0])
    assert engine.broken_off == []
    refused = MemberFailure(volume=id_, node="n1", error="no space", at=Failed.WRITE)
    beats.note_failed(refused)
    await beats._leave_unwell(held[0])
    assert engine.broken_off == ["n1"]
    assert not beats.of(held[0])["n1"].settled
    now[0] += REFUSED_S
    assert beats.of(held[0])["n1"].settled
    silent_disks.add(held[0].status.replicas[0].disk)
    assert not beats.of(held[0])["n1"].settled


async def test_one_that_was_not_read_is_known_until_it_is_served_anew() -> None:
    held = [volume("good", "good")]
    runtime = SimpleNamespace(node="n1", clock=SimpleNamespace(monotonic=lambda: 0.0))
    beats = HostBeats(cast(Any, runtime), cast(Any, Engine()), lambda: held, lambda _: None, 2.0)
    id_ = held[0].meta.id
    beats.note_failed(MemberFailure(volume=id_, node="n1", error="bad", at=Failed.READ))
    assert beats.of(held[0])["n1"].unread
    assert beats.of(held[0])["n1"].settled
    beats.note_served(ServedReplica(volume=id_, epoch=3, export="e", socket="/s", node="n1"))
    assert not beats.of(held[0])["n1"].unread
