"""The node's agent: makes this node's links, gateways and DHCP what its ports need.

The node is one object: everything on it is compared and mended in one pass (`node_plan`), woken
by any change that may concern it, and from time to time anyway. A port passes traffic only
after the firewall of this node said that it is protected at its generation; until then its tap
is down, and the port says why. The firewall being away cuts nobody who was protected before.

What is changed behind Trivet's back is found when a driver is told of it, or else at the next
safety look, which looks closer; it is mended like anything else, and said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Iterable, Mapping
from functools import partial

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.network.drift import Watches
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.contracts.network.switch import Plug
from trivet.contracts.security.endpoints.node_protect import ENDPOINT as PROTECT
from trivet.contracts.security.endpoints.node_protect import ProtectRequest, ProtectResponse
from trivet.contracts.security.firewall import Binding
from trivet.network.domain import segments
from trivet.network.domain.drift import drifted
from trivet.network.domain.lingering import Until, lingering
from trivet.network.domain.node_plan import Observed, forgotten, prepare, ready, unlock
from trivet.network.domain.port_status import Seen, network_after, status_after
from trivet.network.domain.segments import Made, NodeView, Wanted
from trivet.network.holdings import Holdings
from trivet.network.node.effects import NodeEffects, Problems
from trivet.network.node.metadata import MetadataService
from trivet.network.node.vteps import Vteps
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

THE_NODE = "node"
SOON_S = 1.0
APART_S = 0.04
"""Between two looks: a look costs as much as the node has ports, and those that come in the
meantime share the next one."""

TOLD_AT_ONCE = 16


class NodeAgent:
    """The network agent of one node."""

    def __init__(
        self,
        service: Service,
        networks: Collection[Network],
        ports: Collection[Port],
        holdings: Holdings,
        effects: NodeEffects,
        vteps: Vteps,
        metadata: MetadataService,
    ) -> None:
        self._runtime = service.runtime
        self._networks = networks
        self._ports = ports
        self._holdings = holdings
        self._effects = effects
        self._vteps = vteps
        self._metadata = metadata
        self._answer: tuple[tuple[Binding, ...], ProtectResponse, float] | None = None
        self._look_s = service.runtime.settings.network.look_s
        self._settled = Wanted()
        self._made: Mapping[str, Made] = {}
        self._until: Until = {}
        self._told: dict[str, tuple[int, Seen]] = {}
        self._drift: dict[ResourceId, str] = {}
        self._closely_at = 0.0
        self._at_work = False
        self._unsure = False
        self._reconciler = Reconciler(
            "network node",
            self._reconcile,
            clock=self._runtime.clock,
            keys=lambda: [THE_NODE],
            bound=1,
            resync_s=self._look_s,
            apart_s=APART_S,
        )
        ports.on_change(lambda _: self._reconciler.wake(THE_NODE))
        networks.on_change(lambda _: self._reconciler.wake(THE_NODE))
        vteps.on_change(lambda: self._reconciler.wake(THE_NODE))

    async def run(self) -> None:
        """Say where this node's tunnels end, then keep the node as wanted."""
        await self._vteps.say(self._runtime.node, self._runtime.settings.network.vtep)
        await self._reconciler.run()

    async def watch(self, driver: Watches) -> None:
        """Look closely whenever something changed on the node and it was not by this agent. What
        changes while it is at work may be its own doing or not: it looks once more, later."""
        while True:
            await driver.changed()
            if self._at_work:
                self._unsure = True
                continue
            self._closely_at = 0.0
            self._reconciler.wake(THE_NODE)

    def wanted(self) -> Wanted:
        """What this node is to carry, as of the copies now."""
        return self._wanted(tuple(self._ports.list()))

    def _wanted(self, ports: tuple[Port, ...]) -> Wanted:
        networks: dict[str, Network] = {n.meta.id: n for n in self._networks.list()}
        namespace = self._effects.gateway.namespace
        now = self._runtime.clock.monotonic()
        found = segments.wanted(
            NodeView(
                node=self._runtime.node,
                prefix=self._runtime.settings.prefix,
                ports=ports,
                networks=networks,
                vteps=self._vteps.addresses,
                namespaces={id_: namespace(n.meta.id) for id_, n in networks.items()},
                before=self._made,
                lately=frozenset(n for n, until in self._until.items() if until > now),
            )
        )
        self._made = found.made
        here = {made.network.meta.id for made in found.made.values()}
        linger_s = self._runtime.settings.network.linger_s
        self._until = lingering(self._until, here, now, linger_s)
        return found

    async def ping(self, network: ResourceId, address: str, timeout_s: float) -> bool:
        """Whether `address` answers the network's gateway here."""
        return await self._effects.gateway.ping(network, address, timeout_s)

    async def _reconcile(self, _: str) -> float | None:
        self._at_work = True
        try:
            delay = await self._look()
            unsure, self._unsure = self._unsure, False
            return SOON_S if delay is None and unsure else delay
        finally:
            self._at_work = False

    async def _look(self) -> float | None:
        ports = tuple(self._ports.list())
        wanted = self._wanted(ports)
        now = self._runtime.clock.monotonic()
        closely = now >= self._closely_at
        if closely:
            self._closely_at = now + self._look_s
        # The firewall is told meanwhile: its rules may be there before the taps, not after. What
        # is left without any port is told last, or the store may only have forgotten them.
        bindings = wanted.bindings
        early = bindings and self._answered(bindings) is None
        told = asyncio.create_task(self._protect(bindings)) if early else None
        try:
            before = await self._effects.observe(closely=closely)
            if forgotten(len(self._networks.keys()) + len(ports), before):
                log.warning("the store knows no port, this node has some: nothing is torn down")
                return self._look_s
            self._note_drift(wanted, before)
            problems: Problems = {}
            after = before
            if changes := prepare(wanted, before):
                problems = await self._effects.apply(changes)
                after = await self._effects.observe_after(changes, before)
                # What is changed while this goes on is mended by it, too.
                self._note_drift(wanted, after)
            await self._serve_metadata(wanted, after)
            answer = await told if told else await self._protect(bindings)
        finally:
            if told is not None:
                told.cancel()
        raising = unlock(wanted, after, answer.protected)
        if raising:
            problems |= await self._effects.apply(raising)
            after = await self._effects.observe_after(raising, after)
        ports_ready = ready(wanted, after, answer.protected)
        # It is said once it is mended; until then the ports say what is wrong.
        drift = {} if problems else self._drift
        there = {p.device for p in after.plugs}
        await self._tell_all(
            found
            for plug in wanted.plugs
            if (
                found := self._news(
                    plug,
                    plug.device in there,
                    answer,
                    problems,
                    plug.port in ports_ready,
                    drift.get(plug.port, ""),
                )
            )
        )
        self._told = {id_: told for id_, told in self._told.items() if id_ in wanted.made}
        await self._tell_networks(drift)
        await self._let_go(ports, there)
        waiting = len(ports_ready) < len(wanted.plugs)
        if problems or waiting:
            return SOON_S
        self._settled, self._drift = wanted, {}
        return None

    def _note_drift(self, wanted: Wanted, observed: Observed) -> None:
        for found in drifted(self._settled, wanted, observed):
            if found.concerns not in self._drift:
                log.warning("%s was changed on this node: %s", found.concerns, found.what)
                self._drift[found.concerns] = found.what

    async def _serve_metadata(self, wanted: Wanted, after: Observed) -> None:
        """In the gateways that are there; those that were made again may be others."""
        anew, self._effects.gateways_anew = self._effects.gateways_anew, set()
        there = {leg.network for leg in after.legs if leg.generation}
        await self._metadata.serve([g.network for g in wanted.legs if g.network in there], anew)

    async def _protect(self, bindings: tuple[Binding, ...]) -> ProtectResponse:
        """What the firewall says of these ports; it is asked when they changed, when one is
        not protected yet, and at each look."""
        if (said := self._answered(bindings)) is not None:
            return said
        now = self._runtime.clock.monotonic()
        try:
            answer = await self._runtime.client.call(
                PROTECT, ProtectRequest(bindings=bindings), node=self._runtime.node
            )
        except TrivetError as error:
            log.info("the firewall can't be asked: %s", error)
            return self._unheard(bindings, error)
        self._answer = (bindings, answer, now)
        return answer

    def _answered(self, bindings: tuple[Binding, ...]) -> ProtectResponse | None:
        """What the firewall said of these very ports not long ago, if it protects them all."""
        if self._answer is None:
            return None
        asked, said, when = self._answer
        whole = all(said.protected.get(b.port, 0) >= b.generation for b in bindings)
        recent = self._runtime.clock.monotonic() - when < self._look_s
        return said if asked == bindings and whole and recent else None

    def _unheard(self, bindings: tuple[Binding, ...], error: TrivetError) -> ProtectResponse:
        """What was in force is in force still: the firewall's rules outlive its service."""
        last = self._answer[1].protected if self._answer else {}
        reason = f"the firewall of this node can't be asked: {error.detail}"
        return ProtectResponse(protected=last, reasons={b.port: reason for b in bindings})

    def _news(
        self,
        plug: Plug,
        plugged: bool,
        answer: ProtectResponse,
        problems: Problems,
        up: bool,
        drift: str,
    ) -> tuple[Port, Seen] | None:
        """A port and what is seen of it, unless that has been told of it as it is now."""
        port = self._ports.by_id(plug.port)
        if port is None:
            return None
        # What is wrong with the network here is wrong with each of its ports.
        broken = (
            problems.get(plug.device)
            or problems.get(port.status.network_id or "")
            or problems.get(f"vni {plug.vni}")
        )
        unprotected = "" if up else answer.reasons.get(plug.port, "")
        seen = Seen(
            node=self._runtime.node,
            generation=plug.generation,
            device=plug.device,
            mtu=plug.mtu,
            plugged=plugged,
            ready=up and not broken,
            where="Plugged" if broken else "Protected",
            problem=broken or unprotected,
            drift=drift,
        )
        return None if self._told.get(plug.port) == (port.meta.revision, seen) else (port, seen)

    async def _tell_all(self, news: Iterable[tuple[Port, Seen]]) -> None:
        waiting = list(news)
        for first in range(0, len(waiting), TOLD_AT_ONCE):
            some = waiting[first : first + TOLD_AT_ONCE]
            await asyncio.gather(*(self._tell(port, seen) for port, seen in some))

    async def _tell(self, port: Port, seen: Seen) -> None:
        now = self._runtime.clock.now()

        def change(current: Port) -> Port:
            if current.meta.id != port.meta.id or not segments.belongs(current, seen.node):
                return current
            return status_after(current, seen, now)

        told = await self._ports.mutate(self._ports.key_of(port), change)
        if told is not None and not seen.drift:
            self._told[port.meta.id] = (told.meta.revision, seen)

    async def _tell_networks(self, drift: Mapping[ResourceId, str]) -> None:
        now, node = self._runtime.clock.now(), self._runtime.node
        for id_, what in drift.items():
            network = self._networks.by_id(id_)
            if network is not None:
                told = partial(network_after, node=node, drift=what, now=now)
                await self._networks.mutate(self._networks.key_of(network), told)

    async def _let_go(self, ports: Iterable[Port], devices: Container[str]) -> None:
        """Ports that are being deleted end here, once their tap is proven gone."""
        for port in ports:
            if port.meta.deleting_at is None or port.spec.node != self._runtime.node:
                continue
            device = segments.device_of(self._runtime.settings.prefix, port.meta.id)
            if device not in devices:
                await self._holdings.finish_port(self._ports, port)
