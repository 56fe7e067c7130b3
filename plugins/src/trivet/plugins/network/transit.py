"""Which small subnets join a gateway's namespace to the node: a pure choice.

Each gateway that leads outside gets a /30 of the IPv4 link-local range and a /126 of a unique
local IPv6 range. They mean something on one node only, so every node chooses for itself: from a
place that the network's id gives, the first that neither another gateway nor the node has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

RANGE_V4 = IPv4Network("169.254.0.0/16")
RANGE_V6 = IPv6Network("fd74:7276:7474::/112")
# Where clouds serve metadata, and what others are known to use.
RESERVED = (IPv4Network("169.254.0.0/24"), IPv4Network("169.254.169.0/24"))
COUNT = 2**14


@dataclass(frozen=True)
class Transit:
    """The subnets of one gateway; the node has the first address, the gateway the second."""

    index: int

    @property
    def v4(self) -> IPv4Network:
        """The /30."""
        return IPv4Network((int(RANGE_V4.network_address) + 4 * self.index, 30))

    @property
    def v6(self) -> IPv6Network:
        """The /126."""
        return IPv6Network((int(RANGE_V6.network_address) + 4 * self.index, 126))

    def addresses(self, *, node: bool) -> tuple[str, str]:
        """Both addresses of one side, with prefix length."""
        place = 1 if node else 2
        return f"{self.v4[place]}/30", f"{self.v6[place]}/126"


def choose(seed: str, taken: Collection[int], busy: Iterable[str]) -> Transit | None:
    """The transit for the network with id `seed`; None when all are in use.

    `taken`: indexes of other gateways; `busy`: CIDRs that the node uses itself.
    """
    others = [n for text in busy if (n := ip_network(text, strict=False)).version == 4]
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]) % COUNT
    for step in range(COUNT):
        transit = Transit((first + step) % COUNT)
        if transit.index in taken or any(transit.v4.overlaps(r) for r in RESERVED):
            continue
        if not any(transit.v4.overlaps(o) for o in others if o.prefixlen > 0):
            return transit
    return None
