"""What the modules that render tables share: names, modes, and a table while it is made."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from trivet.contracts.security.firewall import Binding
from trivet.plugins.security.nftables_text import Chain, Elements, Table

JUDGED = 0x80000000
VXLAN_PORT = 4789
COUNTERS = ("spoofed", "in_seen", "in_passed", "out_seen", "out_passed")
CONTENTS = "contents"
FAMILY_ORDER = ("bridge", "inet")
TARGET = "@th,64,128"
"""The address that a neighbour message speaks of: behind eight bytes of ICMPv6."""
TARGET_PREFIX = "@th,64,10"
LINK_LOCAL_PREFIX = "0x3fa"


class Mode(StrEnum):
    """How connections of bridged packets are tracked."""

    NATIVE = "bridge-conntrack"
    BR_NETFILTER = "br-netfilter"


@dataclass(frozen=True)
class Names:
    """The names that hang on the driver's prefix. The switch names bridges the same way."""

    prefix: str

    @property
    def table(self) -> str:
        """The tables, one a family."""
        return f"{self.prefix}_firewall"

    @property
    def taps(self) -> str:
        """All devices of guests."""
        return f'"{self.prefix}p*"'

    @property
    def links(self) -> str:
        """All links of Trivet's."""
        return f'"{self.prefix}*"'

    @property
    def tunnels(self) -> str:
        """All tunnels to other nodes."""
        return f'"{self.prefix}vx*"'

    @property
    def bridges(self) -> str:
        """All bridges of Trivet's."""
        return f'"{self.prefix}br*"'

    @property
    def log_group(self) -> str:
        """The group of the kernel's log that this instance reads: one host may have several."""
        return str(1000 + zlib.crc32(f"trivet {self.prefix}".encode()) % 60000)

    def bridge(self, vni: int) -> str:
        """The bridge of a virtual network."""
        return f"{self.prefix}br{vni}"


def judge_family(mode: Mode) -> str:
    """The family whose table holds the stateful chains."""
    return "bridge" if mode is Mode.NATIVE else "inet"


@dataclass
class Parts:
    """A table while it is made. Each chain begins with a rule that carries its marker."""

    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, Elements] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)

    def chain(self, name: str, rules: Sequence[str], *, hook: str = "", marker: str = "") -> None:
        """Add a chain; its first rule carries how many there are, and the marker."""
        comment = f"rules={len(rules) + 1}" + (f" {marker}" if marker else "")
        self.chains[name] = Chain((f'continue comment "{comment}"', *rules), hook)

    def verdicts(self, name: str, type_: str, elements: Iterable[tuple[str, str]]) -> None:
        """Add a map that leads to chains."""
        self.sets[name] = Elements(f"{type_} : verdict", dict(elements), kind="map")

    def table(self) -> Table:
        """What was put together, with a chain that says how much each set holds."""
        marks = [
            f'continue comment "set={name} elements={len(found.elements)}"'
            for name, found in sorted(self.sets.items())
        ]
        self.chain(CONTENTS, marks)
        return Table(self.chains, self.sets, frozenset(self.counters))


def hook_line(hook: str, priority: int) -> str:
    """The first line of a base chain."""
    return f"type filter hook {hook} priority {priority}; policy accept;"


def port_marker(slot: int, binding: Binding) -> str:
    """Whose a chain is, and of which generation."""
    return f"port={binding.port} generation={binding.generation} slot={slot}"
