"""The connections that the kernel tracks at our ports, read from conntrack."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from itertools import islice
from typing import Any

from trivet.contracts.security.firewall import Binding, Connection, Ruleset
from trivet.contracts.security.group import Direction, Protocol

READ_MAX = 100_000
PROTOCOLS = {1: Protocol.ICMP, 6: Protocol.TCP, 17: Protocol.UDP, 58: Protocol.ICMP}

Tracked = tuple[int, int, str, str, int]
"""Zone, protocol number, source, destination, destination port (0 where there is none)."""


def tracked() -> list[Tracked]:
    """What is tracked in the namespace of the calling thread; blocks."""
    found: list[Tracked] = []
    from pyroute2 import NFCTSocket  # late: it is large, and seldom needed

    for family in (socket.AF_INET, socket.AF_INET6):
        with NFCTSocket(nfgen_family=family) as conntrack:
            found += [e for m in islice(conntrack.dump(), READ_MAX) if (e := _entry(m))]
    return found


def connections(
    entries: list[Tracked], ruleset: Ruleset, zones: Mapping[int, int]
) -> list[Connection]:
    """Those of our ports; one between two of them is told at both."""
    ports: dict[tuple[int, str], Binding] = {
        (zones[b.vni], address): b
        for b in ruleset.ports
        if b.vni in zones
        for address in b.addresses
    }
    found: list[Connection] = []
    for zone, number, source, target, port in entries:
        protocol = PROTOCOLS.get(number)
        if protocol is None:
            continue
        ends = ((target, Direction.IN, source), (source, Direction.OUT, target))
        for address, direction, other in ends:
            binding = ports.get((zone, address))
            if binding is not None:
                found.append(
                    Connection(
                        at=binding.port,
                        direction=direction,
                        protocol=protocol,
                        remote=other,
                        port=port,
                    )
                )
    return found


def _entry(message: Any) -> Tracked | None:
    opened = message.get_attr("CTA_TUPLE_ORIG")
    if opened is None:
        return None
    address, protocol = opened.get_attr("CTA_TUPLE_IP"), opened.get_attr("CTA_TUPLE_PROTO")
    version = "V4" if address.get_attr("CTA_IP_V4_SRC") else "V6"
    return (
        _number(message.get_attr("CTA_ZONE")),
        _number(protocol.get_attr("CTA_PROTO_NUM")),
        str(address.get_attr(f"CTA_IP_{version}_SRC")),
        str(address.get_attr(f"CTA_IP_{version}_DST")),
        _number(protocol.get_attr("CTA_PROTO_DST_PORT")),
    )


def _number(value: Any) -> int:
    return int(value) if value is not None else 0
