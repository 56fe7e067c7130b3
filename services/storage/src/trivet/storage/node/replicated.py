"""What a node needs to hold replicated volumes, put together: graphs, comparisons, beats.

An engine that keeps one replica of a volume only has none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.disk import Disk
from trivet.contracts.storage.engine import AttachedVolume, MemberState, VolumeEngine
from trivet.contracts.storage.replication import Replication
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.domain.disks import counted_rewritten, is_of_use
from trivet.storage.domain.graph_plan import Limits
from trivet.storage.domain.volume_status import replica_on
from trivet.storage.node.comparison import Comparisons
from trivet.storage.node.graph_effects import GraphEffects, ReplicatingEngine
from trivet.storage.node.graphs import Graphs
from trivet.storage.node.hosts import HostsOnBus
from trivet.storage.node.reach import HostBeats
from trivet.storage.node.serving import Serving

MENDED_LOOK_S = 0.02


class Replicated:
    """A node's part in replicated volumes. `agent_wake` and `held` are the volume agent's, which
    is made after this."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        engine: VolumeEngine,
        serving: Serving,
        wake: Callable[[ResourceId], None],
        held: Callable[[], list[Volume]],
        disks: Collection[Disk],
    ) -> None:
        runtime, settings = service.runtime, service.runtime.settings.storage
        self._clock = runtime.clock
        self._wake = wake
        self.engine = cast(ReplicatingEngine, engine)

        def answers(name: str) -> bool:
            return is_of_use(disks.get(name))

        self.beats = HostBeats(runtime, self.engine, held, wake, settings.replica_silent_s, answers)
        hosts = HostsOnBus(runtime, serving, self.engine, self.beats.note_served)

        async def rewritten(id_: ResourceId, node: str, blocks: int) -> None:
            volume = volumes.by_id(id_)
            replica = replica_on(volume, node) if volume is not None else None
            if replica is not None:
                key = disks.kind.key(None, replica.disk)
                await disks.mutate(key, partial(counted_rewritten, blocks=blocks))

        self.comparisons = Comparisons(self.engine, hosts, runtime.clock, wake, rewritten=rewritten)
        effects = GraphEffects(
            runtime.node,
            volumes,
            self.engine,
            hosts,
            self.comparisons,
            runtime.clock,
            settings.serve_s,
        )
        limits = Limits(silent_s=settings.replica_silent_s, bytes_per_s=settings.resync_bytes_per_s)
        self.graphs = Graphs(
            runtime.node, volumes, self.engine, effects, self.comparisons, self.beats, limits
        )

    async def hear_failures(self) -> None:
        """Look at once at a volume whose member failed, until cancelled."""
        async for failure in self.engine.failures():
            self.beats.note_failed(failure)
            self._wake(failure.volume)

    async def mended(self, there: AttachedVolume, within_s: float) -> AttachedVolume | None:
        """The graph as it is when no member of it has failed any more, or as it is after that
        long: a guest that was stopped by the failure is let on as soon as that is so."""
        until = self._clock.monotonic() + within_s
        seen: AttachedVolume | None = there
        while seen is not None and MemberState.FAILED in seen.members.values():
            if self._clock.monotonic() > until:
                break
            self._wake(there.volume)
            await asyncio.sleep(MENDED_LOOK_S)
            seen = next(iter(await self.engine.attached(there.volume)), None)
        return seen


def can_replicate(engine: VolumeEngine) -> bool:
    """Whether an engine keeps several replicas."""
    return isinstance(engine, Replication)
