"""Tables as values: chains, sets, maps and counters, and the nft text that makes them so.

A driver computes the tables that it wants. `replacement` makes them whatever is there;
`difference` changes the ones that are known to be there into others, and names only what is
not the same in both: an element of a set, the rules of a chain. Either is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

ELEMENTS_A_LINE = 1000


@dataclass(frozen=True)
class Chain:
    """Rules in order; a base chain's `hook` is its whole first line."""

    rules: tuple[str, ...] = ()
    hook: str = ""


@dataclass(frozen=True)
class Elements:
    """A set, or a map where `kind` says so. `type_` is what follows `type` (or `typeof`, with
    that word); elements go from key to value ('' in a set)."""

    type_: str
    elements: Mapping[str, str] = field(default_factory=dict)
    interval: bool = False
    kind: str = "set"

    @property
    def declaration(self) -> str:
        """The set without its elements, for between braces."""
        typed = self.type_ if self.type_.startswith("typeof ") else f"type {self.type_}"
        return f"{typed}; flags interval;" if self.interval else f"{typed};"

    def same_but_elements(self, other: Elements) -> bool:
        """Whether the two differ in their elements at most."""
        return (self.kind, self.declaration) == (other.kind, other.declaration)


@dataclass(frozen=True)
class Table:
    """All that a table of ours holds."""

    chains: Mapping[str, Chain] = field(default_factory=dict)
    sets: Mapping[str, Elements] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()


Tables = Mapping[str, Table]
"""Tables by family; all of them have the same name."""


def removal(families: Iterable[str], name: str) -> str:
    """What removes the tables, there or not."""
    return "".join(f"table {f} {name}\ndelete table {f} {name}\n" for f in families)


def replacement(tables: Tables, name: str) -> str:
    """One transaction that puts these tables in the place of whatever is there."""
    made = (f"table {f} {name} {{\n{_body(table)}}}\n" for f, table in tables.items())
    return removal(tables, name) + "".join(made)


def _body(table: Table) -> str:
    parts = [f"  counter {name} {{\n  }}\n" for name in sorted(table.counters)]
    for name, made in table.sets.items():
        filled = f"    elements = {{ {', '.join(_texts(made.elements))} }}\n"
        parts.append(
            f"  {made.kind} {name} {{\n    {made.declaration}\n"
            f"{filled if made.elements else ''}  }}\n"
        )
    for name, chain in table.chains.items():
        lines = [*([chain.hook] if chain.hook else []), *chain.rules]
        parts.append(f"  chain {name} {{\n" + "".join(f"    {r}\n" for r in lines) + "  }\n")
    return "".join(parts)


def _texts(elements: Mapping[str, str]) -> Iterator[str]:
    return (f"{key} : {value}" if value else key for key, value in elements.items())


@dataclass(frozen=True)
class SetChange:
    """Elements that go and come in a set that stays."""

    family: str
    name: str
    before: Elements
    after: Elements

    @property
    def gone(self) -> list[str]:
        """Keys of elements that are no more, or have another value."""
        new = self.after.elements
        return [k for k, v in self.before.elements.items() if new.get(k) != v]

    @property
    def new(self) -> dict[str, str]:
        """Elements that were not there, or had another value."""
        old = self.before.elements
        return {k: v for k, v in self.after.elements.items() if old.get(k) != v}


@dataclass(frozen=True)
class Difference:
    """What has to change, by kind of change. Chains that change are made anew as a whole."""

    sets: tuple[SetChange, ...]
    chains: tuple[tuple[str, str, Chain], ...]
    """(family, name, as it is to be)"""
    text: str
    """The whole of it as one transaction for nft; '' where nothing changes."""
    elements_and_chains_alone: bool
    """Nothing is made or removed but elements, and the rules of chains that stay."""


def difference(before: Tables, after: Tables, name: str) -> Difference | None:
    """What changes tables that are `before` into `after`; None: that takes a replacement."""
    if before.keys() != after.keys():
        return None
    adding: list[str] = []
    filling: list[str] = []
    removing: list[str] = []
    sets: list[SetChange] = []
    chains: list[tuple[str, str, Chain]] = []
    for family, new in after.items():
        old = before[family]
        where = f"{family} {name}"
        for set_name in old.sets.keys() & new.sets.keys():
            if not old.sets[set_name].same_but_elements(new.sets[set_name]):
                return None
        hooks = {n: c.hook for n, c in old.chains.items() if c.hook}
        if hooks != {n: c.hook for n, c in new.chains.items() if c.hook}:
            return None
        adding += _made(where, old, new)
        changed = [
            SetChange(family, n, old.sets[n], made)
            for n, made in new.sets.items()
            if n in old.sets and not _same(old.sets[n].elements, made.elements)
        ]
        for change in changed:
            filling += _elements(where, change)
        chains += [(family, n, c) for n, c in new.chains.items() if old.chains.get(n) != c]
        filling += _rules(where, old, new)
        removing += _removed(where, old, new)
        sets += changed
    lines = [*adding, *filling, *removing]
    text = "".join(f"{line}\n" for line in lines)
    return Difference(tuple(sets), tuple(chains), text, not adding and not removing)


def _same(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    # Most are the very same, ten thousand elements and all.
    return one is other or one == other


def _made(where: str, old: Table, new: Table) -> list[str]:
    lines = [f"add counter {where} {n}" for n in sorted(new.counters - old.counters)]
    for name, made in new.sets.items():
        if name not in old.sets:
            lines.append(f"add {made.kind} {where} {name} {{ {made.declaration} }}")
    lines += [f"add chain {where} {n}" for n in new.chains if n not in old.chains]
    # Maps may lead to new chains, so they are filled after those are there.
    for name, made in new.sets.items():
        if name not in old.sets:
            lines += _in_lines("add", where, name, _texts(made.elements))
    return lines


def _elements(where: str, change: SetChange) -> list[str]:
    return [
        *_in_lines("delete", where, change.name, change.gone),
        *_in_lines("add", where, change.name, _texts(change.new)),
    ]


def _in_lines(verb: str, where: str, name: str, texts: Iterable[str]) -> list[str]:
    rest, lines = iter(texts), []
    while some := list(islice(rest, ELEMENTS_A_LINE)):
        lines.append(f"{verb} element {where} {name} {{ {', '.join(some)} }}")
    return lines


def _rules(where: str, old: Table, new: Table) -> list[str]:
    lines = []
    for name, chain in new.chains.items():
        if old.chains.get(name) == chain:
            continue
        if name in old.chains:
            lines.append(f"flush chain {where} {name}")
        lines += [f"add rule {where} {name} {rule}" for rule in chain.rules]
    return lines


def _removed(where: str, old: Table, new: Table) -> list[str]:
    gone = [n for n in old.chains if n not in new.chains]
    sets = [n for n in old.sets if n not in new.sets]
    # Maps that lead to chains go first, then the rules that lead from one chain to another.
    lines = [f"delete {old.sets[n].kind} {where} {n}" for n in sets if old.sets[n].kind == "map"]
    lines += [f"flush chain {where} {n}" for n in gone]
    lines += [f"delete chain {where} {n}" for n in gone]
    lines += [f"delete set {where} {n}" for n in sets if old.sets[n].kind == "set"]
    return [*lines, *(f"delete counter {where} {n}" for n in sorted(old.counters - new.counters))]
