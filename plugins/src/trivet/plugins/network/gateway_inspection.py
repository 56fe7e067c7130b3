"""Looking at gateways as they are: complete or not, ours or not, and what drifted.

It reads (`ip`, `nft`) and changes nothing; what the readings mean is `gateway_look`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.contracts.model import ResourceId
from trivet.contracts.network.drift import Drift
from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.plugins.network import gateway_look, namespaces
from trivet.plugins.network.command import attempt, run
from trivet.plugins.network.gateway_look import Card
from trivet.plugins.network.gateway_records import LegRecord, LegRecords
from trivet.plugins.network.node_forwarding import NodeForwarding

Cards = Mapping[str, Card]


class GatewayInspection:
    """Looks at the gateways of a node. `node_rules`: the digest of the node's own rules, taken
    when they were put in."""

    def __init__(self, records: LegRecords, table: str, node: NodeForwarding) -> None:
        self._records = records
        self._table = table
        self._node = node
        self.node_rules = ""

    async def legs(self) -> tuple[GatewayLeg, ...]:
        """The legs that are recorded, in order of network, and those whose record was lost;
        generation 0 where one is not complete."""
        near = await _near()
        records = self._records.all()
        found = [r.leg if self._whole(r, near) else _partly(r.leg) for r in records]
        known = {self._records.namespace(r.leg.network) for r in records}
        strays = [n for n in namespaces.names(f"{self._records.prefix}-gw-") if n not in known]
        found += [leg for name in strays if (leg := await self._stray(name)) is not None]
        return tuple(found)

    async def drift(self) -> tuple[Drift, ...]:
        """What is wrong with legs that are complete: links, addresses, routes, rules."""
        near = await _near()
        whole = [r for r in self._records.all() if self._whole(r, near)]
        at_node = await self._at_node() if any(r.way for r in whole) else []
        found: list[Drift] = []
        for record in whole:
            wrong = (*self._node_side(record, near), *await self._inside(record))
            what = (*wrong, *(at_node if record.way else ()))
            found.extend(Drift(concerns=record.leg.network, what=w) for w in what)
        return tuple(found)

    async def inner_rules(self, namespace: str) -> str:
        """The digest of the rules inside a gateway."""
        listing = ("nft", "list", "table", "inet", "gateway")
        listed = await attempt("ip", "netns", "exec", namespace, *listing)
        return gateway_look.digest(listed.out)

    async def listed_node_rules(self) -> str:
        """The digest of the node's rules as they are."""
        listed = await attempt("nft", "list", "table", "inet", self._table)
        return gateway_look.digest(listed.out)

    def _whole(self, record: LegRecord, near: Cards) -> bool:
        network = record.leg.network
        there = namespaces.exists(self._records.namespace(network))
        return record.made and there and self._records.inward(network) in near

    async def _stray(self, namespace: str) -> GatewayLeg | None:
        """A gateway without a record: ours if it says for which network it was made."""
        listed = await attempt("ip", "-n", namespace, "-j", "link", "show", "dev", "net0")
        card = gateway_look.cards(listed.out if listed.code == 0 else "").get("net0")
        if card is None or self._records.namespace(ResourceId(card.alias)) != namespace:
            return None
        return GatewayLeg(
            network=ResourceId(card.alias),
            vni=0,
            mac=card.mac,
            addresses=(),
            mtu=card.mtu,
            external=False,
            generation=0,
        )

    def _node_side(self, record: LegRecord, near: Cards) -> tuple[str, ...]:
        network, names = record.leg.network, self._records
        bridge = names.bridge(record.leg.vni)
        inward, outward = names.inward(network), names.outward(network)
        return tuple(gateway_look.node_side(near, inward, bridge, outward, record.way))

    async def _inside(self, record: LegRecord) -> list[str]:
        space = self._records.namespace(record.leg.network)
        listed = await run("ip", "-n", space, "-j", "address", "show")
        routes = await run("ip", "-n", space, "-j", "route", "show", "default")
        inside = gateway_look.cards(listed)
        routed = routes.strip() not in ("", "[]")
        wrong = list(gateway_look.inner_side(inside, record.leg, record.way, routed))
        if await self.inner_rules(space) != record.rules:
            wrong.append("its gateway's rules were changed")
        return wrong

    async def _at_node(self) -> list[str]:
        wrong = []
        if await self.listed_node_rules() != self.node_rules:
            wrong.append("the node's translation rules were changed")
        if not self._node.on():
            wrong.append("the node's forwarding was off")
        return wrong


async def _near() -> Cards:
    return gateway_look.cards(await run("ip", "-j", "address", "show"))


def _partly(leg: GatewayLeg) -> GatewayLeg:
    return leg.model_copy(update={"generation": 0})
