"""Who answers: beats to the hosts of the replicas of this node's graphs, over the storage network.

A host whose replicas are in a graph is asked where the writes go: one of its replica servers
after the other is connected to, and has to greet. One whose replicas are not in a graph is asked
over the bus whether its agent is there, which is all that is needed to ask it to serve. A host
that hangs accepts nothing, or greets nobody, and nobody is told so but by its silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from itertools import count

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.endpoints.node_attachment_check import ENDPOINT as CHECK
from trivet.contracts.storage.endpoints.node_attachment_check import CheckRequest
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.replication import Replication
from trivet.contracts.storage.volume import Volume
from trivet.runtime.service import Runtime
from trivet.storage.domain.graph_plan import Reach
from trivet.storage.domain.reach import Beats, beat, first_beat, lost, reach

BEAT_S = 0.5
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
    ) -> None:
        self._runtime = runtime
        self._engine = engine
        self._held = held
        self._wake = wake
        self._silent_s = silent_s
        self._served: dict[Member, ServedReplica] = {}
        self._beats: dict[str, Beats] = {}
        self._turn = count()

    def note_served(self, served: ServedReplica) -> None:
        """A replica is served for a graph here: that is where its host is asked."""
        self._served[served.volume, served.node] = served

    def note_failed(self, volume: ResourceId, node: str) -> None:
        """A replica failed in a graph here."""
        self._served.pop((volume, node), None)
        known = self._beats.get(node)
        if known is not None:
            self._beats[node] = lost(known, self._runtime.clock.monotonic())

    def of(self, volume: Volume) -> Mapping[str, Reach]:
        """How the hosts of the volume's replicas answer; this node itself always does."""
        now = self._runtime.clock.monotonic()
        found = {
            r.node: reach(self._beats[r.node], now)
            for r in volume.status.replicas
            if r.node in self._beats
        }
        return {**found, self._runtime.node: Reach()}

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            held = self._held()
            nodes = sorted({r.node for v in held for r in v.status.replicas} - {self._runtime.node})
            await asyncio.gather(*(self._beat(node, held) for node in nodes))
            for gone in set(self._beats) - set(nodes):
                del self._beats[gone]
            await self._runtime.clock.sleep(BEAT_S)

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
