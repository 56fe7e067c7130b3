"""The duty of the holder's node towards a replicated volume: its graph as the plan says.

Everything about one volume is done by one worker at a time (the volume agent's), so the steps of
its protocol follow each other; what is slow (copies, comparisons) goes on beside it and wakes it.
It looks, does the first thing there is to do, and looks again until there is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume
from trivet.contracts.storage.replication import CopyState
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.storage.domain.graph_plan import GraphAction, GraphSeen, Limits, Reach, plan_graph
from trivet.storage.node.comparison import Comparisons
from trivet.storage.node.graph_effects import GraphEffects, ReplicatingEngine, Volumes

STEPS_BOUND = 40
COPY_LOOK_S = 0.5
WAITS_LOOK_S = 1.0


class Reaches(Protocol):
    """Who answers."""

    def of(self, volume: Volume) -> Mapping[str, Reach]:
        """How the hosts of the volume's replicas answer, by node."""
        ...


class Graphs:
    """Keeps the graphs of this node's replicated volumes."""

    def __init__(
        self,
        node: str,
        volumes: Volumes,
        engine: ReplicatingEngine,
        effects: GraphEffects,
        comparisons: Comparisons,
        reaches: Reaches,
        limits: Limits,
    ) -> None:
        self._node = node
        self._volumes = volumes
        self._engine = engine
        self._effects = effects
        self._comparisons = comparisons
        self._reaches = reaches
        self._limits = limits

    async def keep(self, volume: Volume) -> float | None:
        """Bring the volume's graph to where nothing is left to do now; `volume` was read from the
        store just now. After how many seconds to look again (None: when woken). Raises
        `TrivetError`."""
        key, id_ = self._volumes.key_of(volume), volume.meta.id
        for _ in range(STEPS_BOUND):
            seen, actions = await self._plan(volume)
            if not actions:
                return _again_s(volume, seen)
            for action in actions:
                await self._effects.apply(volume, action)
            now = await self._volumes.fresh(key)
            if now is None or now.meta.id != id_:
                return None
            volume = now
        return WAITS_LOOK_S

    def rests(self, volume: Volume, attached: AttachedVolume | None) -> bool:
        """Whether nothing is to be done, by what the volume and its graph are known to be."""
        whole = all(
            r.state is ReplicaState.IN_SYNC and not r.suspect for r in volume.status.replicas
        )
        seen = GraphSeen(attached=attached, reach=self._reaches.of(volume))
        return whole and not plan_graph(volume, self._node, seen, self._limits)

    async def end(self, volume: Volume) -> None:
        """End the volume's graph, and record whether it ended in order; `volume` was read from
        the store just now, and is being let go of here."""
        await self._effects.end(volume)

    async def _plan(self, volume: Volume) -> tuple[GraphSeen, tuple[GraphAction, ...]]:
        seen = await self._look(volume)
        return seen, plan_graph(volume, self._node, seen, self._limits)

    async def _look(self, volume: Volume) -> GraphSeen:
        id_: ResourceId = volume.meta.id
        graphs = await self._engine.attached(id_)
        copies = await self._engine.copies(id_) if graphs and graphs[0].slots else ()
        return GraphSeen(
            attached=graphs[0] if graphs else None,
            copies={copy.node: copy for copy in copies},
            reach=self._reaches.of(volume),
            compared=self._comparisons.done(id_),
            comparing=self._comparisons.running(id_),
            far=self._comparisons.far(id_),
        )


def _again_s(volume: Volume, seen: GraphSeen) -> float | None:
    """How soon something may have changed that wakes nobody."""
    if any(copy.state is CopyState.RUNNING for copy in seen.copies.values()):
        return COPY_LOOK_S
    whole = all(r.state is ReplicaState.IN_SYNC and not r.suspect for r in volume.status.replicas)
    return None if whole else WAITS_LOOK_S
