"""Failures of graphs' members, told as they happen.

One listener a graph, at a monitor that is its alone. A vote that a member did not give names the
block node that it stands on. Whenever a listener has (again) begun to hear, it looks at the graph
once: what failed while nobody heard is told then; so it is when a process ends that a graph needs.
That no member ever failed is only known of a graph that was heard from its start to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, MemberState
from trivet.contracts.storage.replication import Failed, MemberFailure
from trivet.plugins.storage.deaths import Deaths
from trivet.plugins.storage.members import read_record
from trivet.plugins.storage.qmp import events
from trivet.plugins.storage.slots import PLACEHOLDER, WRITES, child_of
from trivet.plugins.storage.sockets import Socket

BAD_VOTE, EXPORT_GONE = "QUORUM_REPORT_BAD", "BLOCK_EXPORT_DELETED"
HEAR_S = 5.0
LISTEN_AGAIN_S = 0.5
UNHEARD_MAX = 1000
Look = Callable[[ResourceId], Awaitable[tuple[AttachedVolume, ...]]]


@dataclass
class Heard:
    """What one listener heard: `gapless`: from the start on; `bad`: a member failed a write."""

    gapless: bool = False
    bad: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Failures:
    """Listens to the graphs of a node for whoever asks."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._listeners: dict[Path, asyncio.Task[None]] = {}
        self._heard: dict[Path, Heard] = {}
        self._hearers: set[asyncio.Queue[MemberFailure]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._deaths = Deaths(self._look_soon)

    def listen(self, graph: Socket) -> None:
        """Listen to a graph, until it is gone, and watch its process."""
        self.watch(graph)
        known = self._listeners.get(graph.path)
        if known is None or known.done():
            self._heard[graph.path] = Heard()
            self._listeners[graph.path] = asyncio.create_task(self._hear(graph))

    async def listen_from_the_start(self, graph: Socket) -> None:
        """Listen to a graph that nobody has written through yet."""
        self.listen(graph)
        heard = self._heard[graph.path]
        with suppress(TimeoutError):
            await asyncio.wait_for(heard.begun.wait(), HEAR_S)
            heard.gapless = True

    async def none_of(self, graph: Socket) -> bool:
        """Whether no member ever failed a write of a graph whose export is gone."""
        heard = self._heard.get(graph.path, Heard())
        with suppress(TimeoutError):
            if heard.gapless:  # else it may never be told
                await asyncio.wait_for(heard.ended.wait(), HEAR_S)
        return heard.gapless and heard.ended.is_set() and not heard.bad

    async def ignore(self, graph: Socket) -> None:
        """Listen no more to a graph that is ended."""
        task = self._listeners.pop(graph.path, None)
        self._heard.pop(graph.path, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def told(self) -> AsyncIterator[MemberFailure]:
        """Each failure from now on. Who does not listen loses the oldest, which looks find."""
        queue: asyncio.Queue[MemberFailure] = asyncio.Queue(UNHEARD_MAX)
        self._hearers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._hearers.discard(queue)

    async def close(self) -> None:
        """Stop listening and watching."""
        self._deaths.close()
        tasks = [*self._listeners.values(), *self._looks]
        self._listeners.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def watch(self, socket: Socket) -> None:
        """Look at a volume's graph when the daemon behind that socket ends."""
        self._deaths.watch(socket)

    def _look_soon(self, volume: ResourceId) -> None:
        task = asyncio.create_task(self._catch_up(volume))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _hear(self, graph: Socket) -> None:
        heard = self._heard[graph.path]
        while graph.events.exists():
            try:
                async for event in events(graph.events):
                    await self._understand(graph, heard, event)
            except TrivetError:
                pass  # it is being ended, or died; a look says so
            heard.gapless = False
            await asyncio.sleep(LISTEN_AGAIN_S)

    async def _understand(self, graph: Socket, heard: Heard, event: dict[str, Any]) -> None:
        if not event:
            heard.begun.set()
            await self._catch_up(graph.volume)
        elif event["event"] == BAD_VOTE:
            heard.bad = heard.bad or event["data"]["type"] != "read"
            await self._bad_vote(graph, event["data"])
        elif event["event"] == EXPORT_GONE:
            heard.ended.set()

    async def _catch_up(self, volume: ResourceId) -> None:
        for there in await self._look(volume):
            if not there.healthy:
                self._tell(MemberFailure(volume=volume, node="", error="its graph broke"))
            for node, state in there.members.items():
                if state is MemberState.FAILED:
                    self._tell(MemberFailure(volume=volume, node=node, error="not connected"))

    async def _bad_vote(self, graph: Socket, data: dict[str, Any]) -> None:
        child = child_of(data["node-name"])
        reading = data["type"] == "read"
        if child is None or child.kind == PLACEHOLDER or (reading and child.kind == WRITES):
            return  # a slot itself, or a read of what serves none
        record = await asyncio.to_thread(read_record, graph.record)
        member = record.members.get(child.number) if record is not None else None
        if member is not None:
            error = f"{data['type']}: {data.get('error', 'wrong')}"
            at = Failed.READ if reading else Failed.WRITE
            failure = MemberFailure(volume=graph.volume, node=member.node, error=error, at=at)
            self._tell(failure)

    def _tell(self, failure: MemberFailure) -> None:
        for queue in self._hearers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(failure)
