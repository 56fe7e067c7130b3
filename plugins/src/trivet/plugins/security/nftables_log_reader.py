"""From a logged packet to what its rule's owner may read: which port, which rule."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import LogEntry, Ruleset
from trivet.contracts.security.group import Direction
from trivet.plugins.security.nftables_log import Seen
from trivet.plugins.security.nftables_slots import Slots

SLOT_MASK = 0x7FFF


class LogReader:
    """Understands packets that were logged under one ruleset."""

    def __init__(
        self, node: str, slots: Slots, keys: Mapping[str, NamedRule], ruleset: Ruleset
    ) -> None:
        self._node = node
        self._ports = {slot: port for port, slot in slots.ports.items()}
        self._devices = {b.device: b.port for b in ruleset.ports}
        self._keys = keys

    def entry(self, seen: Seen) -> LogEntry | None:
        """What is told of the packet; None where its rule or its port is no more."""
        key, _, word = seen.prefix.partition(" ")
        named = self._keys.get(key)
        if named is None or word not in {d.value for d in Direction}:
            return None
        direction = Direction(word)
        port = self._port(seen, direction)
        if port is None:
            return None
        return LogEntry(
            at=seen.at,
            node=self._node,
            port=port,
            group=named.group,
            rule=key,
            direction=direction,
            action=named.rule.action,
            protocol=seen.protocol,
            source=seen.source,
            destination=seen.destination,
            source_port=seen.source_port,
            destination_port=seen.destination_port,
        )

    def _port(self, seen: Seen, direction: Direction) -> ResourceId | None:
        """By the slot in the packet's mark; where the bridge judges itself, by the link."""
        mark = seen.mark >> 16 if direction is Direction.OUT else seen.mark
        if mark & SLOT_MASK:
            return self._ports.get(mark & SLOT_MASK)
        index = seen.indev if direction is Direction.OUT else seen.outdev
        with contextlib.suppress(OSError):
            return self._devices.get(socket.if_indextoname(index))
        return None
