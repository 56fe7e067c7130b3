"""Whose beats a new leader has heard."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trivet.storage.controllers.places import PlacesWatch

SILENT_S = 5.0


class World:
    """An instance on n1, at a time that is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

        async def sleep(seconds: float) -> None:
            await asyncio.Event().wait()

        clock = SimpleNamespace(monotonic=lambda: self.now_s, sleep=sleep)
        storage = SimpleNamespace(node_silent_s=SILENT_S)
        runtime = SimpleNamespace(node="n1", clock=clock, settings=SimpleNamespace(storage=storage))
        nothing = SimpleNamespace(list=lambda: ())
        service = SimpleNamespace(runtime=runtime)
        self.watch = PlacesWatch(cast(Any, service), cast(Any, nothing), cast(Any, nothing))
        self.watch._next_ask = float("inf")

    async def hear(self, *nodes: str) -> None:
        for node in nodes:
            await self.watch._beat(
                cast(Any, SimpleNamespace(subject=f"trivet.beat.storage.{node}"))
            )

    async def lead(self) -> None:
        task = asyncio.create_task(self.watch.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_who_takes_over_knows_for_how_long_the_dead_leaders_node_is_silent() -> None:
    world = World()
    await world.hear("n1", "n2", "n3")
    world.now_s = 8.0
    await world.hear("n1", "n3")
    await world.lead()
    nodes = world.watch.places.nodes
    assert nodes["n2"].silent_s == pytest.approx(8.0)
    assert nodes["n3"].silent_s == 0


async def test_who_did_not_even_hear_itself_gives_everybody_the_whole_bound() -> None:
    world = World()
    await world.hear("n1", "n2", "n3")
    world.now_s = 60.0  # it hung, or was cut off
    await world.lead()
    assert not any(node.silent_s for node in world.watch.places.nodes.values())
