"""A node of the simulated cluster: the production agent over the simulated engine.

What decides and acts here is the storage service's own code (`Graphs`, `GraphEffects`,
`Comparisons`, `Serving`, and the domain); only the store, the bus, the engine and the beats are
simulated. The agent is killed at any await and begun anew with nothing remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from tests.simulation.sim_clock import VirtualClock
from tests.simulation.sim_graph import BLOCK, SimEngine
from tests.simulation.sim_machine import World
from tests.simulation.sim_store import NodeVolumes, Truth

from trivet.contracts.errors import TIMEOUT, Retry, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.replication import Digest, Extent
from trivet.contracts.storage.volume import Volume
from trivet.storage.domain.attachment import detached
from trivet.storage.domain.graph_plan import Limits, Reach
from trivet.storage.domain.reach import Beats, beat, first_beat, lost, reach
from trivet.storage.node.comparison import Comparisons
from trivet.storage.node.graph_effects import GraphEffects, ReplicatingEngine
from trivet.storage.node.graphs import Graphs
from trivet.storage.node.serving import Serving

SERVE_S = 1.5
BEAT_S = 0.5
LOOK_S = 1.0
LIMITS = Limits(silent_s=2.0, checkpoint_bytes=2 * BLOCK)


class AgentFailed(AssertionError):
    """A node's agent raised what the code does not expect."""


class SimNode:
    """A node: a machine, its engine (which outlives the agent), and the agent."""

    def __init__(self, name: str, world: World, truth: Truth, volume: ResourceId) -> None:
        self.name = name
        self.world = world
        self.truth = truth
        self.id = volume
        self.machine = world.machines[name]
        self.engine = SimEngine(world, self.machine, volume)
        self.peers: dict[str, SimNode] = {}
        self.bus_cuts: set[str] = set()
        self.agent: Agent | None = None
        self._task: asyncio.Task[None] | None = None

    def start_agent(self) -> None:
        if self.agent is None and self.machine.up:
            self.agent = Agent(self)
            self._task = asyncio.get_running_loop().create_task(self.agent.run())

    async def kill_agent(self) -> None:
        agent, task, self.agent, self._task = self.agent, self._task, None, None
        if agent is None or task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and task.exception() is not None:
            raise AgentFailed("the agent failed") from task.exception()
        await agent.comparisons.close()

    async def power_cut(self) -> None:
        self.world.power_cuts += 1
        await self.kill_agent()
        if self.engine.graph is not None:
            self.engine.graph.die()
            self.engine.graph = None
        self.machine.power_off()

    def power_on(self) -> None:
        self.machine.power_on()
        self.start_agent()


class Agent:
    """One life of a node's storage service."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.clock = VirtualClock()
        self.volumes = NodeVolumes(node.truth, node.name)
        self.serving = Serving(cast(Any, self.volumes), cast(Any, node.engine), node.name, "-")
        self._wake = asyncio.Event()
        self._beats: dict[str, Beats] = {}
        engine = cast(ReplicatingEngine, node.engine)
        node.engine.told = self.wake
        self.comparisons = Comparisons(
            engine,
            self,
            self.clock,
            lambda _: self.wake(),
            piece_bytes=2 * BLOCK,
            block_bytes=BLOCK,
        )
        effects = GraphEffects(
            node.name, self.volumes, engine, self, self.comparisons, self.clock, SERVE_S
        )
        self.graphs = Graphs(
            node.name, self.volumes, engine, effects, self.comparisons, self, LIMITS
        )

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        self.node.truth.watchers.append(self.wake)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work())
                group.create_task(self._beat())
        finally:
            self.node.truth.watchers.remove(self.wake)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            try:
                again_s = await self._once()
            except TrivetError as error:
                again_s = error.retry_after_s or 0.3
            try:
                async with asyncio.timeout(again_s if again_s is not None else LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _once(self) -> float | None:
        await self.node.machine.awake()
        volume = await self.volumes.fresh("v")
        assert volume is not None
        held, me = volume.status.attachment, self.node.name
        if held is not None and held.node == me and held.detaching:
            await self.graphs.end(volume)
            await self.volumes.mutate("v", lambda v: detached(v, me))
            return None
        if held is not None and held.node == me:
            return await self.graphs.keep(volume)
        if await self.node.engine.attached():
            await self.node.engine.detach(self.node.id)
        return None

    # --- the hosts, over the bus ---

    async def serve(
        self, volume: ResourceId, epoch: int, node: str, within_s: float
    ) -> ServedReplica:
        """Ask until it serves; a message that is slow may do its work long after."""
        random, until = self.node.world.random, self.clock.monotonic() + within_s
        while True:
            target = await self._reach(node)
            call = self.node.world.spawn(self._served(target, epoch))
            left_s = max(until - self.clock.monotonic(), 0.05)
            done, _ = await asyncio.wait({call}, timeout=left_s)
            if not done:
                raise Retry(TIMEOUT, "no answer")
            try:
                return call.result()
            except Retry:
                if self.clock.monotonic() + 0.1 >= until:
                    raise
            await asyncio.sleep(0.1 + random.choice((0.0, 0.01)))

    async def _served(self, target: SimNode, epoch: int) -> ServedReplica:
        world = self.node.world
        late = world.random.random() < world.late and target is not self.node
        await asyncio.sleep(world.random.uniform(1, 5) if late else world.latency())
        await target.machine.awake()
        if target.agent is None:
            raise Retry(TIMEOUT, "nobody answers")
        return await target.agent.serving.serve(self.node.id, epoch, remote=True, fresh=True)

    async def digest(
        self, volume: ResourceId, node: str, extent: Extent, block_bytes: int
    ) -> Digest:
        target = await self._reach(node)
        await asyncio.sleep(self.node.world.latency())
        if target.agent is None:
            raise Retry(TIMEOUT, "nobody answers")
        return await target.engine.digest(volume, extent, block_bytes)

    async def _reach(self, node: str) -> SimNode:
        """The node, if the bus goes there."""
        target = self.node.peers[node]
        cut = node in self.node.bus_cuts or self.node.name in target.bus_cuts
        if cut or target.agent is None or not target.machine.up:
            await asyncio.sleep(0.5)
            raise Retry(TIMEOUT, f"{node} does not answer")
        return target

    # --- the beats ---

    def of(self, volume: Volume) -> Mapping[str, Reach]:
        now = self.clock.monotonic()
        return {node: reach(beats, now) for node, beats in self._beats.items()}

    async def _beat(self) -> None:
        names = sorted(self.node.peers)
        self._beats = {name: first_beat(self.clock.monotonic()) for name in names}
        while True:
            await self.clock.sleep(BEAT_S)
            now, graph = self.clock.monotonic(), self.node.engine.graph
            for name in names:
                known = self._beats[name]
                answered = self.node.world.answers(self.node.name, name)
                known = beat(known, answered, now, LIMITS.silent_s)
                member = graph.members.get(name) if graph is not None else None
                if member is not None and member.failed and (known.lost_at or -9) < now - 3:
                    known = lost(known, now)
                self._beats[name] = known
                if reach(known, now).silent_s >= LIMITS.silent_s and member and not member.failed:
                    with suppress(TrivetError):
                        await self.node.engine.break_off(self.node.id, name)
                    self.wake()
