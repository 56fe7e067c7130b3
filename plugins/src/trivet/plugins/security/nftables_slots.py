"""Numbers that stay: a slot for each port and a conntrack zone for each network.

A packet carries its ports' slots in its mark between two tables, and its connection lives in
the zone of its network. Both must outlive a replacement of the rules: a slot that changed
hands while a packet is between the tables would lend it another port's rules, and a zone that
changed would cut every connection. So what was given is kept, and new numbers go upward from
the last one before old ones are used again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import Ruleset

MAX_SLOT = 0x7FFF
MAX_ZONE = 0xFFFF

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True)
class Slots:
    """The numbers in use: of ports (1-32767) and of virtual networks' zones (1-65535)."""

    ports: Mapping[ResourceId, int] = field(default_factory=dict)
    zones: Mapping[int, int] = field(default_factory=dict)


def assign_slots(ruleset: Ruleset, previous: Slots) -> Slots:
    """Numbers for all that `ruleset` names; what `previous` gave is kept."""
    return Slots(
        ports=_assign((b.port for b in ruleset.ports), previous.ports, MAX_SLOT),
        zones=_assign((b.vni for b in ruleset.ports), previous.zones, MAX_ZONE),
    )


def _assign(wanted: Iterable[KeyT], previous: Mapping[KeyT, int], last: int) -> dict[KeyT, int]:
    keys = list(dict.fromkeys(wanted))
    if len(keys) > last:
        raise ValueError(f"{len(keys)} numbers are wanted, there are {last}")
    given = {key: previous[key] for key in keys if key in previous}
    taken = set(given.values())
    candidate = max(previous.values(), default=0)
    for key in keys:
        if key in given:
            continue
        candidate = candidate % last + 1
        while candidate in taken:
            candidate = candidate % last + 1
        given[key] = candidate
        taken.add(candidate)
    return given
