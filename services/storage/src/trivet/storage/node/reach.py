"""Who answers: beats to the hosts of the replicas of this node's graphs, over the storage network.

A host whose replicas are in a graph is asked where the writes go: one of its replica servers
after the other is connected to, and has to greet. One whose replicas are not in a graph is asked
over the bus whether its agent is there, which is all that is needed to ask it to serve. A host
that hangs accepts nothing, or greets nobody, and nobody is told so but by its silence. Graphs
outlive this process: whom to ask of those that it finds, their engine tells.

A server may greet and yet be of no use: its disk does not answer (its own node says so), or it
answers writes with errors. It is broken off, too, where others have all it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

from trivet.contracts.errors import Refused, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.endpoints.node_attachment_check import ENDPOINT as CHECK
from trivet.contracts.storage.endpoints.node_attachment_check import CheckRequest
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.replication import Failed, MemberFailure, Replication
from trivet.contracts.storage.volume import Volume
from trivet.runtime.service import Runtime
from trivet.storage.domain.graph_plan import Reach
from trivet.storage.domain.reach import Beats, beat, first_beat, lost, not_waited_for, reach

BEAT_S = 0.5
REFUSED_S = 2.0
"""For how long one that has refused a write is taken to refuse the next."""
ANSWER_S = 1.0

log = logging.getLogger(__name__)

Member = tuple[ResourceId, str]


class HostBeats:
    """The beats to other hosts. `held` tells which volumes are held here with slots."""

    def __init__(
        self,
        runtime: Runtime,
        engine: Replication,
        held: Callable[[], list[Volume]],
        wake: Callable[[ResourceId], None],
        silent_s: float,
        answers: Callable[[str], bool] = lambda disk: True,
    ) -> None:
        self._runtime = runtime
        self._engine = engine
        self._held = held
        self._wake = wake
        self._silent_s = silent_s
        self._served: dict[Member, ServedReplica] = {}
        self._beats: dict[str, Beats] = {}
        self._answers_of_disk = answers
        self._refused: dict[Member, float] = {}
        self._unread: set[Member] = set()
        self._found: set[ResourceId] = set()
        self._turn = count()

    def note_served(self, served: ServedReplica) -> None:
        """A replica is served for a graph here: that is where its host is asked."""
        self._served[served.volume, served.node] = served
        self._unread.discard((served.volume, served.node))

    def note_failed(self, failure: MemberFailure) -> None:
        """A replica failed in a graph here."""
        member, now = (failure.volume, failure.node), self._runtime.clock.monotonic()
        if failure.at is Failed.READ:
            self._unread.add(member)
            return
        if failure.at is Failed.WRITE:
            self._refused[member] = now
        self._served.pop(member, None)
        known = self._beats.get(failure.node)
        if known is not None:
            self._beats[failure.node] = lost(known, now)

    def of(self, volume: Volume) -> Mapping[str, Reach]:
        """How the hosts of the volume's replicas answer; this node itself always does."""
        now = self._runtime.clock.monotonic()
        found = {
            r.node: reach(self._beats[r.node], now)
            for r in volume.status.replicas
            if r.node in self._beats
        }
        found[self._runtime.node] = Reach()
        unwell, id_ = self._unwell(volume), volume.meta.id
        return {
            node: replace(
                one, settled=one.settled and node not in unwell, unread=(id_, node) in self._unread
            )
            for node, one in found.items()
        }

    def _unwell(self, volume: Volume) -> frozenset[str]:
        """Where a replica refuses writes, or lies on a disk that does not answer."""
        id_, now = volume.meta.id, self._runtime.clock.monotonic()
        return frozenset(
            r.node
            for r in volume.status.replicas
            if now - self._refused.get((id_, r.node), -REFUSED_S) < REFUSED_S
            or not self._answers_of_disk(r.disk)
        )

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            held = self._held()
            await self._find_served(held)
            nodes = sorted({r.node for v in held for r in v.status.replicas} - {self._runtime.node})
            await asyncio.gather(*(self._beat(node, held) for node in nodes))
            await asyncio.gather(*(self._leave_unwell(volume) for volume in held))
            for gone in set(self._beats) - set(nodes):
                del self._beats[gone]
            await self._runtime.clock.sleep(BEAT_S)

    async def _find_served(self, held: list[Volume]) -> None:
        """Know the servers of graphs that are there already, once."""
        ids = {volume.meta.id for volume in held}
        self._found &= ids
        for id_ in sorted(ids - self._found):
            try:
                servers = await self._engine.servers(id_)
            except TrivetError as error:
                if not isinstance(error, Refused):
                    log.info("%s: who serves it is not known yet: %s", id_, error)
                    continue
                servers = ()
            for served in servers:
                self._served.setdefault((id_, served.node), served)
            self._found.add(id_)

    async def _beat(self, node: str, held: list[Volume]) -> None:
        clock = self._runtime.clock
        known = self._beats.setdefault(node, first_beat(clock.monotonic()))
        was = reach(known, clock.monotonic())
        mine = [v for v in held if any(r.node == node for r in v.status.replicas)]
        answered = await self._answers(node, mine)
        now = clock.monotonic()
        self._beats[node] = beat(self._beats.get(node, known), answered, now, self._silent_s)
        is_ = reach(self._beats[node], now)
        silent = is_.silent_s >= self._silent_s
        for volume in mine:
            if silent:
                await self._break_off(volume.meta.id, node)
            if silent or (is_.settled and not was.settled):
                self._wake(volume.meta.id)

    async def _leave_unwell(self, volume: Volume) -> None:
        unwell = self._unwell(volume)
        if not unwell:
            return
        reaches = self.of(volume)
        silent = [node for node, one in reaches.items() if one.silent_s >= self._silent_s]
        for node in not_waited_for(volume, unwell, silent):
            log.warning("%s: the replica on %s is of no use now and is broken off", volume, node)
            await self._break_off(volume.meta.id, node)
            self._wake(volume.meta.id)

    async def _break_off(self, volume: ResourceId, node: str) -> None:
        """Here and not by the one who keeps the graph: he may be waiting for the silent one."""
        try:
            await self._engine.break_off(volume, node)
        except TrivetError as error:
            log.debug("%s: %s is not broken off: %s", volume, node, error)
            return
        # That server is nobody's any more: from now on its host is asked whether it is there.
        self._served.pop((volume, node), None)

    async def _answers(self, node: str, volumes: list[Volume]) -> bool:
        there = [s for v in volumes if (s := self._served.get((v.meta.id, node)))]
        try:
            async with asyncio.timeout(ANSWER_S):
                if there:
                    return await self._engine.greets(there[next(self._turn) % len(there)])
                asked = CheckRequest(volume=volumes[0].meta.id)
                await self._runtime.client.call(CHECK, asked, node=node, timeout_s=ANSWER_S)
        except (TrivetError, TimeoutError):
            return False
        return True
