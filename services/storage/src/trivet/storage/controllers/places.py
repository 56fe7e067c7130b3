"""What the leader knows of hosts and disks: who is heard, who is to be emptied, what is missing.

That a node lives is heard by its storage agent's beats. What is wanted of it (maintenance, to be
emptied, to be removed) the compute service keeps, and is asked from time to time; while that
does not answer, what it said last holds, and no node counts as removed.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.node import Node
from trivet.contracts.endpoint import ListRequest
from trivet.contracts.errors import TrivetError
from trivet.contracts.storage.disk import Disk, DiskHealth
from trivet.contracts.storage.pool import Pool
from trivet.runtime.bus import Message
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.domain.places import DiskView, NodeView, Places, disk_view, full_places
from trivet.storage.node.beats import BEATS_IN_SILENCE, beat_subject

log = logging.getLogger(__name__)

ASK_S = 5.0
PAGE = 1000
OWN_BEATS = 2
"""Within so many beats' time an instance hears itself, if it hears anybody."""


class PlacesWatch:
    """Keeps `places` true while its instance leads; before that all is taken to be usable.

    Beats are heard by every instance: who takes over from a leader that died with its node knows
    by then for how long that node has been silent."""

    def __init__(self, service: Service, pools: Collection[Pool], disks: Collection[Disk]) -> None:
        self._runtime = service.runtime
        self._pools = pools
        self._disks = disks
        self._silent_s = service.runtime.settings.storage.node_silent_s
        self._heard: dict[str, float] = {}
        self._met: dict[str, float] = {}
        self._missing: dict[str, float] = {}
        self._asked: dict[str, Node] | None = None
        self._next_ask = 0.0
        self._callbacks: list[Callable[[], None]] = []
        self.places = Places()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when what is known of a node or disk has changed its kind."""
        self._callbacks.append(callback)

    async def listen(self) -> None:
        """Hear beats until cancelled."""
        subscription = await self._runtime.bus.subscribe(beat_subject("*"), self._beat)
        try:
            await asyncio.Event().wait()
        finally:
            await subscription.stop()

    async def run(self) -> None:
        """Look until cancelled. A new leader that did not hear its own node's beats just now has
        heard nobody's, and gives every node the whole bound to be heard."""
        own_s = self._runtime.clock.monotonic() - self._heard.get(self._runtime.node, -math.inf)
        if own_s > OWN_BEATS * self._silent_s / BEATS_IN_SILENCE:
            self._heard.clear()
        self._met.clear()
        self._missing.clear()
        while True:
            await self.look()
            await self._runtime.clock.sleep(self._silent_s / BEATS_IN_SILENCE)

    async def _beat(self, message: Message) -> None:
        self._heard[message.subject.rsplit(".", 1)[-1]] = self._runtime.clock.monotonic()

    async def look(self) -> None:
        """Bring `places` up to date."""
        now = self._runtime.clock.monotonic()
        if now >= self._next_ask:
            await self._ask()
            self._next_ask = now + ASK_S
        names = {m.node for pool in self._pools.list() for m in pool.spec.members}
        names |= set(self._asked or ()) | set(self._heard)
        before = self.places
        self.places = Places(
            {name: self._node(name, now) for name in sorted(names)},
            {disk.meta.name: self._disk(disk, now) for disk in self._disks.list()},
            full_places(self._pools.list()),
        )
        if _kinds(before) != _kinds(self.places):
            for callback in self._callbacks:
                callback()

    async def _ask(self) -> None:
        try:
            page = await self._runtime.client.call(NODES.list, ListRequest(limit=PAGE))
        except TrivetError as error:
            log.debug("the compute service does not tell of nodes: %s", error)
            return
        self._asked = {node.meta.name: node for node in page.items}

    def _node(self, name: str, now: float) -> NodeView:
        silent_s = now - self._heard.get(name, self._met.setdefault(name, now))
        silent_s = silent_s if silent_s > self._silent_s else 0.0
        if self._asked is None:
            return NodeView(silent_s)
        node = self._asked.get(name)
        if node is None:
            # One that is heard is about to register; one that is not, and is not listed, is gone.
            return NodeView(silent_s, gone=bool(silent_s and self._asked))
        leaves = node.meta.deleting_at is not None
        if leaves and silent_s:
            return NodeView(silent_s, gone=True)
        empties = leaves or (node.spec.maintenance and node.spec.evacuate)
        return NodeView(silent_s, maintenance=node.spec.maintenance, empties=empties)

    def _disk(self, disk: Disk, now: float) -> DiskView:
        if disk.status.health is not DiskHealth.MISSING:
            self._missing.pop(disk.meta.name, None)
            return disk_view(disk, 0.0)
        since = self._missing.setdefault(disk.meta.name, now)
        return disk_view(disk, max(now - since, 0.001))


def _kinds(places: Places) -> object:
    """What of it changes decisions at once, without the seconds."""
    nodes = {
        n: (bool(v.silent_s), v.maintenance, v.empties, v.gone) for n, v in places.nodes.items()
    }
    return nodes, places.full, {d: (v.health, v.isolated) for d, v in places.disks.items()}
