"""The machines of the simulated cluster: disks behind page caches, servers, and the wire.

A replica's content is what was written back to its disk, and what is still in its host's memory:
a power cut keeps any part of the latter. A server executes what arrives, also from a client that
is gone by then; a hung host lets messages wait, and goes through them when it wakes. A message
that meets a cut wire waits until that is mended, as TCP sends again; it is gone when its sender
loses power or the server that it is for has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

Done = TypeVar("Done")

BLOCKS = 4
AGAIN_S = (0.05, 0.1, 0.5, 3.0)
"""TCP sends again after a growing while: what waited may come long after the wire was mended."""

LATENCIES = (0.0005, 0.001, 0.002, 0.02)


@dataclass
class Disk:
    """A replica's blocks."""

    durable: list[int] = field(default_factory=lambda: [0] * BLOCKS)
    cache: dict[int, int] = field(default_factory=dict)

    def read(self, block: int) -> int:
        return self.cache.get(block, self.durable[block])

    def content(self) -> list[int]:
        return [self.read(b) for b in range(BLOCKS)]

    def flush(self) -> None:
        for block, value in self.cache.items():
            self.durable[block] = value
        self.cache.clear()

    def lose_power(self, random: Random) -> None:
        for block, value in self.cache.items():
            if random.random() < 0.5:
                self.durable[block] = value
        self.cache.clear()


@dataclass
class Server:
    """A replica's server: one process, under one epoch."""

    epoch: int
    number: int
    alive: bool = True


class Machine:
    """One host: power, kernel, its replica (if it has one), its server."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.up = True
        self.hung = False
        self.boot = 1
        self.powered_at = -1.0
        self.disk: Disk | None = None
        self.epoch = 0
        self.server: Server | None = None
        self._woken = asyncio.Event()
        self._woken.set()

    def power_off(self) -> None:
        self.up = False
        self.wake()
        if self.server is not None:
            self.server.alive = False
            self.server = None
        if self.disk is not None:
            self.disk.lose_power(self.world.random)

    def power_on(self) -> None:
        self.up = True
        self.boot += 1
        self.powered_at = asyncio.get_running_loop().time()

    def hang(self) -> None:
        self.hung = True
        self._woken.clear()

    def wake(self) -> None:
        self.hung = False
        self._woken.set()

    async def awake(self) -> None:
        """Wait while the host hangs."""
        while self.hung:
            await self._woken.wait()

    def serve(self, epoch: int, fresh: bool) -> Server:
        """Start a server, and end those of older epochs (with `fresh`: all)."""
        if self.server is not None and (fresh or self.server.epoch != epoch):
            self.server.alive = False
            self.server = None
        if self.server is None:
            self.world.servers += 1
            self.server = Server(epoch, self.world.servers)
        return self.server

    def end_server(self) -> None:
        if self.server is not None:
            self.server.alive = False
            self.server = None


class Broken(Exception):
    """A connection ended."""


class Connection:
    """From a graph to a server. What is asked is done there at some time, or never."""

    def __init__(self, world: World, source: Machine, target: Machine, server: Server) -> None:
        self._world = world
        self._source = source
        self._boot = source.boot
        self._target = target
        self._server = server
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._asked = 0
        self.open = True

    def shut(self) -> None:
        """End it on this side; what was sent may still arrive."""
        self.open = False
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Broken())
        self._waiting.clear()

    async def ask(self, act: Callable[[Disk], int]) -> int:
        """Have something done there. Raises `Broken`."""
        if not self.open:
            raise Broken
        loop = asyncio.get_running_loop()
        self._asked += 1
        number, answer = self._asked, loop.create_future()
        self._waiting[number] = answer
        loop.call_later(self._world.latency(), self._arrive, act, number)
        try:
            return await answer
        finally:
            self._waiting.pop(number, None)

    def _arrive(self, act: Callable[[Disk], int], number: int) -> None:
        """A request comes to the target, or waits on the wire, or before a host that hangs."""
        world, source, target = self._world, self._source, self._target
        lost_sender = not source.up or source.boot != self._boot
        if lost_sender and world.random.random() < 0.7:
            return  # what was on the wire already may arrive all the same
        if not world.passes(source.name, target.name) or target.hung or not target.up:
            world.later(lambda: self._arrive(act, number))
            return
        back_s = world.latency()
        if not self._server.alive or target.disk is None:
            asyncio.get_running_loop().call_later(back_s, self._return, number, None)
        else:
            result = act(target.disk)
            asyncio.get_running_loop().call_later(back_s, self._return, number, result)

    def _return(self, number: int, result: int | None) -> None:
        """The answer comes back, or that there is nobody."""
        if not self._world.passes(self._target.name, self._source.name):
            self._world.later(lambda: self._return(number, result))
            return
        answer = self._waiting.get(number)
        if result is None:
            self.shut()
        elif answer is not None and not answer.done():
            answer.set_result(result)


class World:
    """The machines and the wires between them; every chance comes of one seed."""

    def __init__(self, random: Random, names: tuple[str, ...]) -> None:
        self.random = random
        self.servers = 0
        self.late = 0.03
        self.cuts: set[tuple[str, str]] = set()
        self.power_cuts = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: BaseException | None = None
        self.machines = {name: Machine(name, self) for name in names}

    def latency(self) -> float:
        return LATENCIES[int(self.random.random() * len(LATENCIES))]

    async def pause(self, *seconds: float) -> None:
        """Wait for one of these times; none at all for 0."""
        chosen = seconds[int(self.random.random() * len(seconds))]
        if chosen:
            await asyncio.sleep(chosen)

    def spawn(self, work: Coroutine[Any, Any, Done]) -> asyncio.Task[Done]:
        """Begin work that nobody need wait for; what must never happen is kept for `check`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(task.exception(), AssertionError):
            self._failed = task.exception()

    def check(self) -> None:
        """Raise what went wrong beside."""
        if self._failed is not None:
            raise self._failed

    def cut(self, source: str, target: str) -> None:
        self.cuts.add((source, target))

    def mend(self) -> None:
        self.cuts.clear()

    def passes(self, source: str, target: str) -> bool:
        return source == target or (source, target) not in self.cuts

    def later(self, act: Callable[[], None]) -> None:
        """Try something again when a wire was mended or a host has woken, or so."""
        asyncio.get_running_loop().call_later(self.random.choice(AGAIN_S), act)

    def answers(self, source: str, target: str) -> bool:
        """Whether a heartbeat from one to the other comes back."""
        there = self.machines[target]
        if not there.up or there.hung:
            return False
        return self.passes(source, target) and self.passes(target, source)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
