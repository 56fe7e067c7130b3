"""Networks and their ports as elements of sets that do not overlap, kept as they come and go.

The kernel's sets of ranges refuse what overlaps, so networks that lie within others are cut. They
are nested or apart, so what is left of one depends on the wider ones around it alone: when one
comes or goes, only it and what lies within it is looked at again. That makes one rule of ten
thousand cheap to change, and the same code makes all of them the first time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from trivet.contracts.security.evaluate import network
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import Span, merge_spans, span_text, without

WHOLE: tuple[Span, ...] = ((0, 65535),)
ALL_PORTS = list(WHOLE)
WIDTHS = {4: 32, 6: 128}
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
HOSTS, NETWORKS, EXACT, RANGED = "h", "a", "x", "q"
"""The kinds of sets: hosts and networks whatever the port, pairs of host and port, of ranges."""

Prefix = tuple[int, int]
"""A network as its length and its first address: as numbers, since there are ten thousand."""

Piece = tuple[str, str]
"""A kind of set, and an element of it."""


@lru_cache(maxsize=65536)
def prefix(text: str) -> tuple[int, Prefix]:
    """A network's IP version, and itself as numbers."""
    parsed = network(text)
    return parsed.version, (parsed.prefixlen, int(parsed.network_address))


@lru_cache(maxsize=65536)
def prefix_text(version: int, where: Prefix) -> str:
    """A network as nft writes it; a single host without its length."""
    length, first = where
    address = IPv4Address(first) if version == 4 else IPv6Address(first)
    return str(address) if length == WIDTHS[version] else f"{address}/{length}"


class Networks:
    """Networks of one IP version, each with spans of ports, some perhaps several times."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._width = WIDTHS[version]
        self._spans: dict[Prefix, list[Span]] = {}
        self._merged: dict[Prefix, list[Span]] = {}
        self._lengths: Counter[int] = Counter()
        self._touched: set[Prefix] = set()
        self._pieces: dict[Prefix, tuple[Piece, ...]] = {}
        host, port = ADDRESS_TYPES[version], "inet_service"
        self._sets = {
            HOSTS: Elements(host),
            NETWORKS: Elements(host, interval=True),
            EXACT: Elements(f"{host} . {port}"),
            RANGED: Elements(f"{host} . {port}", interval=True),
        }

    def add(self, where: Prefix, spans: Iterable[Span]) -> None:
        """These ports of a network more."""
        found = self._spans.get(where)
        if found is None:
            self._spans[where] = list(spans)
            self._lengths[where[0]] += 1
        else:
            found.extend(spans)
        self._touched.add(where)

    def remove(self, where: Prefix, spans: Iterable[Span]) -> None:
        """What was added before is taken back."""
        found = self._spans[where]
        for span in spans:
            found.remove(span)
        if not found:
            del self._spans[where]
            self._lengths[where[0]] -= 1
        self._touched.add(where)

    def sets(self) -> dict[str, Elements]:
        """The sets that say the same, by kind; those that are not empty."""
        if self._touched:
            self._settle()
        return {kind: found for kind, found in self._sets.items() if found.elements}

    def _settle(self) -> None:
        for where in self._touched:
            own = self._spans.get(where)
            if own is None:
                self._merged.pop(where, None)
            else:
                self._merged[where] = own if len(own) == 1 else merge_spans(own)
        lengths = sorted(length for length, count in self._lengths.items() if count)
        changed: dict[str, dict[str, str]] = {}

        def elements(kind: str) -> dict[str, str]:
            if kind not in changed:
                changed[kind] = dict(self._sets[kind].elements)
            return changed[kind]

        for where in self._affected():
            old, new = self._pieces.pop(where, ()), self._pieces_of(where, lengths)
            if new:
                self._pieces[where] = new
            if old == new:
                continue
            for kind, text in old:
                del elements(kind)[text]
            for kind, text in new:
                elements(kind)[text] = ""
        for kind, made in changed.items():
            before = self._sets[kind]
            self._sets[kind] = Elements(before.type_, made, interval=before.interval)
        self._touched.clear()

    def _affected(self) -> Iterable[Prefix]:
        """What was touched, and what lies within it."""
        if len(self._touched) >= len(self._spans):
            return self._touched | self._spans.keys()
        around = sorted({where[0] for where in self._touched if where[0] < self._width})
        if not around:
            return sorted(self._touched)
        shifts = [(length, self._width - length) for length in around]
        within = {
            (length, first)
            for length, first in self._spans
            for wider, shift in shifts
            if wider < length and (wider, first >> shift << shift) in self._touched
        }
        return self._touched | within

    def _pieces_of(self, where: Prefix, lengths: list[int]) -> tuple[Piece, ...]:
        """What is left of a network beside those around it, as elements of the sets."""
        left = self._merged.get(where)
        if left is None:
            return ()
        length, first = where
        for wider in lengths:
            if wider >= length or not left:
                break
            shift = self._width - wider
            taken = self._merged.get((wider, first >> shift << shift))
            if taken is not None:
                left = without(left, taken)
        text = prefix_text(self._version, where)
        host = length == self._width
        if left == ALL_PORTS:
            return ((HOSTS if host else NETWORKS, text),)
        return tuple(
            (EXACT if host and span[0] == span[1] else RANGED, f"{text} . {span_text(span)}")
            for span in left
        )


class ListSets:
    """The sets of an address list: one an IP version, networks without those within others."""

    def __init__(self) -> None:
        self._addresses: tuple[str, ...] = ()
        self._networks = {version: Networks(version) for version in ADDRESS_TYPES}
        self._made: dict[int, Elements] = self._now()

    def of(self, addresses: tuple[str, ...]) -> dict[int, Elements]:
        """The sets of these addresses, by IP version; both always."""
        if addresses != self._addresses:
            old, new = set(self._addresses), set(addresses)
            for text in sorted(old - new):
                version, where = prefix(text)
                self._networks[version].remove(where, WHOLE)
            for text in sorted(new - old):
                version, where = prefix(text)
                self._networks[version].add(where, WHOLE)
            self._addresses, self._made = addresses, self._now()
        return self._made

    def _now(self) -> dict[int, Elements]:
        made = {}
        for version, found in self._networks.items():
            sets = found.sets()
            elements = dict(_all(sets.get(kind) for kind in (HOSTS, NETWORKS)))
            made[version] = Elements(ADDRESS_TYPES[version], elements, interval=True)
        return made


def _all(sets: Iterable[Elements | None]) -> Iterator[tuple[str, str]]:
    for found in sets:
        if found is not None:
            yield from found.elements.items()
