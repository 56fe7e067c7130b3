"""A gateway as it is, against what was made: pure findings from what `ip` and `nft` list.

The lists come as JSON of `ip -j address show` and the like; rules are compared by a digest of
their listing, taken right after they were put in, so that whatever was added or flushed shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.plugins.network.transit import Transit

METADATA = "169.254.169.254"


@dataclass(frozen=True)
class Card:
    """A link, as far as gateways care."""

    up: bool
    master: str | None
    mtu: int
    mac: str
    alias: str
    addresses: frozenset[str]


def cards(listed: str) -> dict[str, Card]:
    """The links in the output of `ip -j address show`, by name; addresses with prefix length,
    without those that IPv6 makes by itself."""
    items: Sequence[Mapping[str, Any]] = json.loads(listed or "[]")
    return {
        item["ifname"]: Card(
            up="UP" in item.get("flags", ()),
            master=item.get("master"),
            mtu=item.get("mtu", 0),
            mac=item.get("address", ""),
            alias=item.get("ifalias", ""),
            addresses=frozenset(
                f"{a['local']}/{a['prefixlen']}"
                for a in item.get("addr_info", ())
                if a["scope"] == "global" or a["local"].startswith("169.254.")
            ),
        )
        for item in items
        if item.get("ifname")
    }


def digest(rules: str) -> str:
    """What stands for the listing of a table."""
    return hashlib.sha256(rules.encode()).hexdigest()[:16]


def node_side(
    near: Mapping[str, Card], inward: str, bridge: str, outward: str | None, transit: Transit | None
) -> Iterable[str]:
    """What is wrong with the gateway's ends at the node."""
    leg = near.get(inward)
    if leg is None or not leg.up:
        yield "its gateway's link to the bridge was down"
    elif leg.master != bridge:
        yield "its gateway was not on its bridge"
    if outward is not None and transit is not None:
        out = near.get(outward)
        if out is None or not out.up:
            yield "its gateway's link to the node was down"
        elif not out.addresses >= set(transit.addresses(node=True)):
            yield "an address of its gateway's link was gone at the node"


def inner_side(
    inside: Mapping[str, Card], leg: GatewayLeg, transit: Transit | None, routed: bool
) -> Iterable[str]:
    """What is wrong inside the gateway's namespace; `routed`: it has its default routes."""
    inner = inside.get("net0")
    if inner is None or not inner.up:
        yield "its gateway was down"
    elif inner.addresses != {str(ip_interface(a)) for a in leg.addresses}:
        yield "its gateway's addresses were changed"
    elif (inner.mac, inner.mtu) != (leg.mac, leg.mtu):
        yield "its gateway's MAC or MTU was changed"
    lo = inside.get("lo")
    if lo is None or f"{METADATA}/32" not in lo.addresses:
        yield "the metadata address was gone from its gateway"
    if transit is not None:
        outer = inside.get("ext0")
        if outer is None or not outer.up:
            yield "its gateway's way outside was down"
        elif outer.addresses != set(transit.addresses(node=False)):
            yield "its gateway's outer addresses were changed"
        elif not routed:
            yield "its gateway's default route was gone"
