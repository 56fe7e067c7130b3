"""The documents that `trivet apply` reads: what they ask, in which order, and what differs. Pure.

A file holds YAML documents (JSON is one, too) of `kind`, `meta` and `spec` as the API shows them,
or lists of them (`items`), so that what `-o yaml` prints can be given back. What a document does
not name stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trivet.cli import yaml_text
from trivet.contracts.endpoint import SERVICES, Endpoint, NewMeta, declared
from trivet.contracts.resource import Kind

DOCUMENTS_MAX = 1000
_OTHER_WORDS = {"group": "security-group", "set": "address-set"}
"""Words that stand for a kind: as a field, or before a name (`remote: group:web`)."""

_GROUND = (
    *("project", "role", "user", "pool", "network", "address-set", "security-group", "image"),
    "volume",
)
"""What others need without naming it (a volume is in the default pool), in this order."""


@dataclass(frozen=True)
class Wanted:
    """One document: the kind, its operations by verb, and what is asked."""

    kind: Kind[Any]
    endpoints: Mapping[str, Endpoint[Any, Any]]
    meta: NewMeta
    spec: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str | None, str]:
        """What names it: kind, project (None: not said, or of the cluster), name."""
        return self.kind.name, self.meta.project, self.meta.name

    def __str__(self) -> str:
        where = f"{self.meta.project}/" if self.meta.project else ""
        return f"{self.kind.name} {where}{self.meta.name}"


def read_documents(text: str) -> list[Wanted]:
    """What each document asks. Raises `ValueError` naming the document."""
    kinds = kinds_by_word()
    try:
        documents = list(_flat(d for d in yaml_text.load_all(text) if d is not None))
    except yaml_text.Unreadable as error:
        raise ValueError(f"the file is not YAML: {error}") from error
    if len(documents) > DOCUMENTS_MAX:
        raise ValueError(f"{len(documents)} documents; at most {DOCUMENTS_MAX}")
    found: dict[tuple[str, str | None, str], Wanted] = {}
    for number, document in enumerate(documents, start=1):
        wanted = _read(number, document, kinds)
        if wanted.place in found:
            raise ValueError(f"document {number}: {wanted} is there twice")
        found[wanted.place] = wanted
    return list(found.values())


def _flat(documents: Iterable[Any]) -> Iterator[Any]:
    """The documents, and those in lists."""
    for document in documents:
        if isinstance(document, dict) and "kind" not in document and "items" in document:
            yield from document["items"] if isinstance(document["items"], list) else [document]
        else:
            yield document


def _read(
    number: int, document: Any, kinds: Mapping[str, tuple[Kind[Any], dict[str, Endpoint[Any, Any]]]]
) -> Wanted:
    if not isinstance(document, dict) or str(document.get("kind")) not in kinds:
        raise ValueError(f"document {number}: kind is one of {', '.join(sorted(kinds))}")
    unknown = set(document) - {"kind", "meta", "spec", "status"}
    if unknown:
        raise ValueError(f"document {number}: there is no {min(map(str, unknown))}")
    kind, endpoints = kinds[document["kind"]]
    given, spec = document.get("meta"), document.get("spec") or {}
    if not isinstance(given, dict) or not isinstance(spec, dict):
        raise ValueError(f"document {number}: meta and spec are objects")  # noqa: TRY004
    try:
        known = ("name", "project", "labels")
        meta = NewMeta.model_validate({k: v for k, v in given.items() if k in known})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"document {number}: meta.{where}: {first['msg']}") from error
    return Wanted(kind, endpoints, meta, spec)


def kinds_by_word() -> dict[str, tuple[Kind[Any], dict[str, Endpoint[Any, Any]]]]:
    """Every kind with its operations, by the word in `kind`."""
    found: dict[str, tuple[Kind[Any], dict[str, Endpoint[Any, Any]]]] = {}
    for service in SERVICES:
        for endpoint in declared(service):
            if endpoint.kind is not None and endpoint.http is not None:
                word = endpoint.kind.model.model_fields["kind"].default
                found.setdefault(word, (endpoint.kind, {}))[1][endpoint.verb] = endpoint
    return found


def in_order(wanted: Sequence[Wanted]) -> list[Wanted]:
    """The documents, each after those that it names, and after what its kind needs; else as they
    stand in the file."""
    wanted = sorted(wanted, key=_ground)
    by_name: dict[tuple[str, str], list[Wanted]] = {}
    for one in wanted:
        by_name.setdefault((one.kind.name, one.meta.name), []).append(one)
    ordered: dict[tuple[str, str | None, str], Wanted] = {}
    under_way: set[tuple[str, str | None, str]] = set()

    def place(one: Wanted) -> None:
        if one.place in ordered or one.place in under_way:
            return
        under_way.add(one.place)
        for named in _named(one):
            for other in by_name.get(named, ()):
                place(other)
        under_way.discard(one.place)
        ordered[one.place] = one

    for one in wanted:
        place(one)
    return list(ordered.values())


def _ground(one: Wanted) -> int:
    return _GROUND.index(one.kind.name) if one.kind.name in _GROUND else len(_GROUND)


def _named(one: Wanted) -> Iterator[tuple[str, str]]:
    """The kinds and names that a document speaks of."""
    if one.meta.project:
        yield "project", one.meta.project
    yield from _named_in(one.spec)


def _named_in(value: Any, word: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named_in(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _named_in(inner, word)
    elif isinstance(value, str):
        prefix, colon, name = value.partition(":")
        if colon and prefix in _OTHER_WORDS:
            yield _OTHER_WORDS[prefix], name
        kind = _OTHER_WORDS.get(word, word.replace("_", "-"))
        yield kind, value
        yield kind.removesuffix("s"), value


def difference(wanted: Any, present: Any, path: str = "") -> list[str]:
    """Lines `path: old -> new` of what `wanted` names and `present` has otherwise."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        lines: list[str] = []
        for key, value in wanted.items():
            lines += difference(value, present.get(key), f"{path}.{key}" if path else str(key))
        return lines
    if isinstance(wanted, list) and isinstance(present, list) and len(wanted) == len(present):
        pairs = enumerate(zip(wanted, present, strict=True))
        return [line for n, (w, p) in pairs for line in difference(w, p, f"{path}[{n}]")]
    return [] if wanted == present else [f"{path}: {present!r} -> {wanted!r}"]
