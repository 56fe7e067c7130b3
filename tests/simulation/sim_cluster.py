"""One seeded run: a cluster, a holder that moves about, and everything that can go wrong.

At the end all is mended; then the volume must become whole, end in order, and be right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation.sim_checker import Checker
from tests.simulation.sim_clock import EPOCH, run_virtual
from tests.simulation.sim_graph import BLOCK
from tests.simulation.sim_guest import HOLDER, Guest
from tests.simulation.sim_machine import BLOCKS, Disk, World
from tests.simulation.sim_node import SimNode
from tests.simulation.sim_store import NodeVolumes, Truth

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.volume import (
    Attachment,
    Missing,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.attachment import attach, detach

NODES = ("n1", "n2", "n3")
SIZE = BLOCKS * BLOCK
FAULTS_S = 15.0
MENDED_S = 90.0


class Stuck(AssertionError):
    """All is mended, and the volume does not become whole."""


@dataclass
class Told:
    """What a run was like."""

    acked: int
    reads: int
    guests: int
    faults: int
    lost: int


def run(seed: int) -> Told:
    """One run. Raises `Violation` or `Stuck`."""
    told: Told = run_virtual(Cluster(seed).run())
    return told


class Cluster:
    """The cluster of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.guests = 0
        self.runs = 0
        self.faults = 0
        self.lost = 0

    async def run(self) -> Told:
        self._build()
        try:
            work = [
                asyncio.get_running_loop().create_task(w) for w in (self._holders(), self._harm())
            ]
            done, _ = await asyncio.wait(
                work, timeout=FAULTS_S, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            for task in done:
                task.result()
            await self._mend()
            await self._whole()
            self.checker.at_rest(self.truth.volume)
            self.world.check()
        finally:
            for guest in self.living:
                await asyncio.gather(guest.kill(), return_exceptions=True)
            for node in self.nodes.values():
                await asyncio.gather(node.kill_agent(), return_exceptions=True)
                if node.engine.graph is not None:
                    node.engine.graph.die()
            await self.world.close()
        return Told(self.checker.acked, self.checker.reads, self.guests, self.faults, self.lost)

    def _build(self) -> None:
        random = self.random
        self.world = World(random, NODES)
        count = random.choice((2, 2, 3))
        on = sorted(random.sample(NODES, count))
        new = random.choice(on) if random.random() < 0.2 else None
        self.truth = Truth(random, _volume(on, new))
        self.truth.faults = random.choice((0.0, 0.02, 0.06))
        self.nodes = {n: SimNode(n, self.world, self.truth, ResourceId("volume-1")) for n in NODES}
        for name, node in self.nodes.items():
            node.peers = self.nodes
            if name in on:
                node.machine.disk = Disk()
            node.start_agent()
        self.checker = Checker(self.world)
        self.living: list[Guest] = []

    # --- holders -----------------------------------------------------------------------------

    async def _holders(self) -> None:
        """A guest here, then there: it dies, moves, is taken for dead, or goes off in order."""
        random = self.random
        while True:
            guest = await self._begin(random.choice(NODES))
            if guest is None:
                continue
            name = guest.node.name
            until = asyncio.get_running_loop().time() + random.uniform(0.5, 7)
            while asyncio.get_running_loop().time() < until and self.nodes[name].machine.up:
                await asyncio.sleep(0.2)
                for one in self.living:
                    one.check()
            await self._leave(guest)

    async def _begin(self, name: str) -> Guest | None:
        """Attach there, and let the guest run once the socket is on record."""
        node = self.nodes[name]
        if not node.machine.up:
            await asyncio.sleep(0.3)
            return None
        for guest in [g for g in self.living if g.node is node]:
            await self._bury(guest)  # the same one is not run twice on a node
        self.runs += 1
        mine = await self._hold(name, self.runs)
        if mine is None:
            return None
        for _ in range(60):
            there = self.truth.volume.status.attachment
            if there is None or there.epoch != mine.epoch or not node.machine.up:
                return None
            if there.socket is not None:
                self.guests += 1
                self.checker.new_guest(self.guests)
                guest = Guest(self.guests, node, mine.epoch, self.checker)
                self.living.append(guest)
                return guest
            await asyncio.sleep(0.1)
        return None

    async def _hold(self, name: str, run: int) -> Attachment | None:
        """As the endpoint does it: a former run is let go of in order, or is taken after all."""
        volumes = NodeVolumes(self.truth, name)
        for impatient in (False, True):
            take = partial(
                attach, holder=HOLDER, node=name, broken_epoch=None, run=run, impatient=impatient
            )
            try:
                volume = await volumes.mutate("v", take)
            except TrivetError:
                await asyncio.sleep(0.2)
                return None
            held = volume.status.attachment if volume else None
            if held is None or (held.node, held.run) == (name, run):
                return held
            for _ in range(40):
                there = self.truth.volume.status.attachment
                if there is None or there.epoch != held.epoch:
                    break
                await asyncio.sleep(0.1)
        return None

    async def _leave(self, guest: Guest) -> None:
        fate = self.random.random()
        if not guest.node.machine.up or fate < 0.3:
            await self._bury(guest)
        elif fate < 0.6:
            await guest.stop()
            await self._bury(guest)
            await self._let_go(guest.node.name)
        else:
            # Taken for dead while it lives: it goes on as long as it is let.
            if fate < 0.9:
                await self._isolate(guest.node)
            self._later(self.random.uniform(1, 8), lambda: self._bury(guest))

    async def _bury(self, guest: Guest) -> None:
        if guest in self.living:
            self.living.remove(guest)
            await guest.kill()

    async def _let_go(self, name: str) -> None:
        volumes = NodeVolumes(self.truth, name)
        try:
            await volumes.mutate("v", lambda v: detach(v, HOLDER))
        except TrivetError:
            return
        for _ in range(40):
            if self.truth.volume.status.attachment is None:
                return
            await asyncio.sleep(0.1)

    # --- harm --------------------------------------------------------------------------------

    def _later(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await act()

        self.world.spawn(wait())

    async def _harm(self) -> None:
        random = self.random
        pace = random.choice((0.3, 0.8, 2.0))
        kinds = [
            self._cut_power,
            self._kill_agent,
            self._kill_graph,
            self._kill_server,
            self._hang,
            self._cut_wire,
            self._cut_store,
            self._cut_bus,
            self._isolate,
            self._cut_newest,
            self._blink,
        ]
        if random.random() < 0.7:
            kinds = random.sample(kinds, 3)
        while True:
            await asyncio.sleep(random.uniform(0.1, 2 * pace))
            self.faults += 1
            lost = sum(
                r.state is not ReplicaState.IN_SYNC for r in self.truth.volume.status.replicas
            )
            self.lost = max(self.lost, lost)
            for _ in range(random.choice((1, 1, 2))):
                await random.choice(kinds)(self.nodes[random.choice(NODES)])

    async def _cut_power(self, node: SimNode) -> None:
        if not node.machine.up:
            return
        for guest in [g for g in self.living if g.node is node]:
            await self._bury(guest)
        await node.power_cut()

        async def on() -> None:
            if not node.machine.up:
                node.power_on()

        self._later(self.random.uniform(0.2, 8), on)

    async def _cut_newest(self, node: SimNode) -> None:
        """Power cut where something has just come in sync, and is soonest believed."""
        before = {r.node for r in self.truth.volume.status.replicas if _is_good(r)}
        for _ in range(60):
            good = {r.node for r in self.truth.volume.status.replicas if _is_good(r)}
            if good - before:
                await asyncio.sleep(self.random.choice((0.0, 0.05, 0.3)))
                await self._cut_power(self.nodes[min(good - before)])
                return
            before = good
            await asyncio.sleep(0.05)

    async def _blink(self, node: SimNode) -> None:
        """The graph dies, and a host starts again in no time, so that nobody sees it silent."""
        for other in self.nodes.values():
            await self._kill_graph(other)
        if self.truth.volume.status.attachment is None or not node.machine.up:
            return
        if node.name != self.truth.volume.status.attachment.node:
            await node.power_cut()
            await asyncio.sleep(0.02)
            node.power_on()

    async def _kill_agent(self, node: SimNode) -> None:
        await node.kill_agent()

        async def on() -> None:
            node.start_agent()

        self._later(self.random.uniform(0.01, 2), on)

    async def _kill_graph(self, node: SimNode) -> None:
        if node.engine.graph is not None:
            node.engine.graph.die()

    async def _kill_server(self, node: SimNode) -> None:
        node.machine.end_server()

    async def _hang(self, node: SimNode) -> None:
        node.machine.hang()

        async def wake() -> None:
            node.machine.wake()

        self._later(self.random.uniform(0.3, 6), wake)

    async def _cut_wire(self, node: SimNode) -> None:
        other = self.random.choice([n for n in NODES if n != node.name])
        ways = [(node.name, other), (other, node.name)]
        for source, target in ways if self.random.random() < 0.5 else ways[:1]:
            self.world.cut(source, target)

        async def mend() -> None:
            self.world.mend()

        self._later(self.random.uniform(0.3, 6), mend)

    async def _cut_store(self, node: SimNode) -> None:
        self.truth.cut.add(node.name)

        async def mend() -> None:
            self.truth.cut.discard(node.name)

        self._later(self.random.uniform(0.3, 6), mend)

    async def _cut_bus(self, node: SimNode) -> None:
        other = self.random.choice([n for n in NODES if n != node.name])
        node.bus_cuts.add(other)

        async def mend() -> None:
            node.bus_cuts.discard(other)

        self._later(self.random.uniform(0.3, 6), mend)

    async def _isolate(self, node: SimNode) -> None:
        """Cut a node off from everything."""
        others = [n for n in NODES if n != node.name]
        self.truth.cut.add(node.name)
        for other in others:
            self.world.cut(node.name, other)
            self.world.cut(other, node.name)
            node.bus_cuts.add(other)

        async def mend() -> None:
            self.truth.cut.discard(node.name)
            node.bus_cuts.clear()
            self.world.mend()

        self._later(self.random.uniform(0.5, 7), mend)

    # --- the end -----------------------------------------------------------------------------

    async def _mend(self) -> None:
        for guest in list(self.living):
            await self._bury(guest)
        self.world.mend()
        self.truth.cut.clear()
        self.truth.faults = self.world.late = 0.0
        for node in self.nodes.values():
            node.bus_cuts.clear()
            node.machine.wake()
            if not node.machine.up:
                node.power_on()
            node.start_agent()
        await asyncio.sleep(8)  # what was late comes by then, what was to come back is back

    async def _whole(self) -> None:
        """A last holder; all replicas become in sync; it goes off in order. What was late may have
        ended a server that nobody asked anything since: then that is found at the end, and the
        next one is in order."""
        until = asyncio.get_running_loop().time() + MENDED_S
        await self._last(until)
        while self.truth.volume.status.unclean:
            self._in_time(until, "it was let go of in order, and is not recorded so")
            await self._last(until)

    async def _last(self, until: float) -> None:
        guest: Guest | None = None
        while guest is None:
            self._in_time(until, "nobody can attach it")
            guest = await self._begin(self.random.choice(NODES))
        while not all(
            r.state is ReplicaState.IN_SYNC and not r.suspect
            for r in self.truth.volume.status.replicas
        ):
            self._in_time(until, "it does not become whole")
            await asyncio.sleep(0.5)
            guest.check()
        await guest.stop()
        self.living.clear()
        while self.truth.volume.status.attachment is not None:
            self._in_time(until, "it is not let go of")
            await self._let_go(guest.node.name)

    def _in_time(self, until: float, what: str) -> None:
        if asyncio.get_running_loop().time() > until:
            raise Stuck(f"{what}: {self.truth.volume.status!r}")


def _is_good(replica: Replica) -> bool:
    return replica.state is ReplicaState.IN_SYNC and not replica.suspect


def _volume(on: list[str], new: str | None) -> Volume:
    replicas = tuple(
        Replica(
            node=node,
            disk="p",
            state=ReplicaState.STALE if node == new else ReplicaState.IN_SYNC,
            missing=Missing.ALL if node == new else Missing.NOTHING,
            size_bytes=SIZE,
        )
        for node in on
    )
    meta = Meta(id=ResourceId("volume-1"), name="v", project="p", created_at=EPOCH)
    status = VolumeStatus(phase=Phase.READY, replicas=replicas, size_bytes=SIZE, claimed_bytes=SIZE)
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1, replicas=len(on)), status=status)
