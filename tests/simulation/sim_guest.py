"""A guest: it writes, reads and flushes; an error stops it, and let on it asks again."""

from __future__ import annotations

import asyncio

from tests.simulation.sim_checker import Checker
from tests.simulation.sim_graph import Graph, WriteFailed
from tests.simulation.sim_machine import BLOCKS
from tests.simulation.sim_node import SimNode
from tests.simulation.sim_store import NodeVolumes

from trivet.contracts.errors import TrivetError
from trivet.storage.domain.attachment import attach

WRITERS = 2
HOLDER = "vm/1"
PACES = ((0.005, 0.03, 0.1), (0.01, 0.05, 0.2), (0.2, 0.5, 1.0))


class Guest:
    """One run of a guest on a node, in one epoch."""

    def __init__(self, number: int, node: SimNode, epoch: int, checker: Checker) -> None:
        self.number = number
        self.node = node
        self.epoch = epoch
        self._checker = checker
        self._random = node.world.random
        self._written = 0
        self._pace = self._random.choice(PACES)
        self._stopping = False
        self._tasks = [
            asyncio.get_running_loop().create_task(self._live(n)) for n in range(WRITERS)
        ]

    async def stop(self) -> None:
        """Go off in order: what was asked for is finished, and flushed."""
        self._stopping = True
        await asyncio.wait(self._tasks, timeout=3)
        await self.kill()

    async def kill(self) -> None:
        """End at once. Raises what a writer met that must not be."""
        for task in self._tasks:
            task.cancel()
        for found in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(found, Exception):
                raise found

    def check(self) -> None:
        """Raise what a writer met that must not be."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _live(self, writer: int) -> None:
        mine = [b for b in range(BLOCKS) if b % WRITERS == writer]
        while not self._stopping:
            await asyncio.sleep(self._random.choice(self._pace))
            block, what = self._random.choice(mine), self._random.random()
            if what < 0.55:
                await self._write(block)
            elif what < 0.85:
                await self._read(block)
            else:
                await self._flush()

    async def _write(self, block: int) -> None:
        self._written += 1
        value = self.number * 100_000 + block * 10_000 + self._written
        now = asyncio.get_running_loop().time
        self._checker.issued(self.number, block, value, now())
        while True:
            try:
                # What was handed to the graph is done there, whatever becomes of the guest.
                write = (await self._graph()).write(block, value)
                await asyncio.shield(self.node.world.spawn(write))
            except WriteFailed:
                await self._stopped()
            else:
                break
        self._checker.acknowledged(self.number, block, value, self.node.truth.volume, now())

    async def _read(self, block: int) -> None:
        while True:
            try:
                value = await (await self._graph()).read(block)
            except WriteFailed:
                await self._stopped()
            else:
                break
        self._checker.found(self.number, block, value)

    async def _flush(self) -> None:
        while True:
            issued_at = asyncio.get_running_loop().time()
            cuts = self.node.world.power_cuts
            try:
                await (await self._graph()).flush()
            except WriteFailed:
                await self._stopped()
            else:
                break
        self._checker.flushed(self.number, issued_at, cuts)

    async def _graph(self) -> Graph:
        """What is behind the socket now."""
        graph = self.node.engine.graph
        if graph is None or not graph.alive or graph.spec.epoch != self.epoch:
            raise WriteFailed
        return graph

    async def _stopped(self) -> None:
        """Wait to be let on: whoever runs the guest asks for the disk where it broke."""
        await asyncio.sleep(self._random.choice((0.05, 0.2, 0.5)))
        graph = self.node.engine.graph
        if graph is not None and graph.alive and graph.spec.epoch == self.epoch:
            return
        volumes = NodeVolumes(self.node.truth, self.node.name)
        node, epoch = self.node.name, self.epoch
        try:
            volume = await volumes.fresh("v")
            held = volume.status.attachment if volume else None
            if held is not None and (held.epoch, held.node) == (epoch, node):
                await volumes.mutate("v", lambda v: attach(v, HOLDER, node, epoch))
        except TrivetError:
            await asyncio.sleep(0.3)
