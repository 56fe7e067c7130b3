"""Addresses of a subnet: who has the gateway's, what a port may ask for, what it is offered.

The gateway is the first usable address. IPv4 ports are offered the first that is free; IPv6
ports the one that follows from their MAC (EUI-64) where the subnet is wide enough, which hardly
ever is taken. Guests get both by DHCP: an address that a guest makes up itself is no port's.
Nothing is taken here: whoever asks claims what it is offered, and asks for the next when
somebody else was faster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def gateway_of(subnet: str) -> str:
    """The gateway's address in a subnet, without prefix length."""
    return str(ip_network(subnet)[1])


def gateways_of(subnets: Iterable[str]) -> tuple[str, ...]:
    """The gateways' addresses of a network, with prefix length."""
    return tuple(f"{gateway_of(s)}/{ip_network(s).prefixlen}" for s in subnets)


def overlapping(subnets: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first of `subnets` that overlaps one of `others`, with that one; None: none does."""
    theirs = [ip_network(o) for o in others]
    for text in subnets:
        mine = ip_network(text)
        for other in theirs:
            if mine.version == other.version and mine.overlaps(other):
                return text, str(other)
    return None


def normal(address: str) -> str | None:
    """The one spelling of an address; None where it is none."""
    try:
        return str(ip_address(address))
    except ValueError:
        return None


def usable(subnet: str, address: str) -> bool:
    """Whether a port may have the address: inside, and nobody's by rule."""
    net, wanted = ip_network(subnet), ip_address(address)
    return wanted in net and wanted not in _reserved(net)


def candidates(subnet: str, taken: Collection[str], mac: str) -> Iterator[str]:
    """Addresses to offer, best first, without those known to be taken."""
    net = ip_network(subnet)
    if isinstance(net, IPv6Network) and net.prefixlen <= 64:
        first = str(_eui64(net, mac))
        if first not in taken:
            yield first
    reserved = {str(address) for address in _reserved(net)}
    last = int(net.broadcast_address)
    for number in range(int(net.network_address) + 1, last + 1):
        address = _text(net.version, number)
        if address not in reserved and address not in taken:
            yield address


@lru_cache(maxsize=65536)
def _text(version: int, number: int) -> str:
    """An address as text; the first ones of a subnet are asked for again and again."""
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))


def _reserved(net: Subnet) -> set[Address]:
    """The network's own address (IPv6: the routers' anycast), the gateway's, the broadcast."""
    reserved: set[Address] = {net.network_address, net[1]}
    if net.version == 4:
        reserved.add(net.broadcast_address)
    return reserved


def _eui64(net: IPv6Network, mac: str) -> IPv6Address:
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    host = bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])
    return IPv6Address(int(net.network_address) + int.from_bytes(host))
