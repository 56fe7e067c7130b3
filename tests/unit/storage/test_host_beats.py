"""Where a host is asked whether it is there: at its server while that is in a graph, or by bus."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.unit.storage.test_replication_domain import volume

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.storage.node.reach import HostBeats


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
