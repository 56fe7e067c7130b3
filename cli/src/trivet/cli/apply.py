"""`trivet apply`: many resources in one document; shows what differs, then makes it so.

The file holds YAML documents of `kind`, `meta` and `spec` as the API shows them. What a document
does not name stays as it is; a resource that no document names is left alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from trivet.cli.session import connected, usage
from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.endpoint import SERVICES, Endpoint, NewMeta, declared
from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.resource import AnyResource, Kind

DOCUMENTS_MAX = 1000


@dataclass(frozen=True)
class Wanted:
    """One document: the kind, its operations by verb, and what is asked."""

    kind: Kind[Any]
    endpoints: dict[str, Endpoint[Any, Any]]
    meta: NewMeta
    spec: dict[str, Any]

    def __str__(self) -> str:
        where = f"{self.meta.project}/" if self.meta.project else ""
        return f"{self.kind.name} {where}{self.meta.name}"


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML documents; - is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
) -> None:
    """Create and change resources until they are as the file says."""
    with usage():
        wanted = list(read_documents(_text(file)))
    with connected() as client:
        for one in wanted:
            _apply_one(client, one, dry_run)


def read_documents(text: str) -> Iterator[Wanted]:
    """What each document asks. Raises `ValueError` naming the document."""
    kinds = _kinds()
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"the file is not YAML: {error}") from error
    if len(documents) > DOCUMENTS_MAX:
        raise ValueError(f"{len(documents)} documents; at most {DOCUMENTS_MAX}")
    for number, document in enumerate(documents, start=1):
        if not isinstance(document, dict) or str(document.get("kind")) not in kinds:
            raise ValueError(f"document {number}: kind is one of {', '.join(sorted(kinds))}")
        kind, endpoints = kinds[document["kind"]]
        known = ("name", "project", "labels")
        given = document.get("meta")
        if not isinstance(given, dict) or not isinstance(document.get("spec", {}), dict):
            raise ValueError(f"document {number}: meta and spec are objects")  # noqa: TRY004
        try:
            meta = NewMeta.model_validate({k: v for k, v in given.items() if k in known})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"document {number}: meta.{where}: {first['msg']}") from error
        yield Wanted(kind, endpoints, meta, document.get("spec", {}))


def difference(wanted: dict[str, Any], present: dict[str, Any], path: str = "") -> list[str]:
    """Lines `path: old -> new` of what `wanted` names and `present` has otherwise."""
    lines: list[str] = []
    for key, value in wanted.items():
        where, there = f"{path}{key}", present.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            lines += difference(value, there, f"{where}.")
        elif not _alike(value, there):
            lines.append(f"{where}: {there!r} -> {value!r}")
    return lines


def _alike(wanted: Any, present: Any) -> bool:
    """Whether a wanted value is there; objects in lists may name fewer fields."""
    if isinstance(wanted, list) and isinstance(present, list) and len(wanted) == len(present):
        return all(_alike(w, p) for w, p in zip(wanted, present, strict=True))
    if isinstance(wanted, dict) and isinstance(present, dict):
        return all(_alike(v, present.get(k)) for k, v in wanted.items())
    return bool(wanted == present)


def _apply_one(client: Client, wanted: Wanted, dry_run: bool) -> None:
    present = _present(client, wanted)
    named = {"project": wanted.meta.project} if wanted.meta.project else {}
    fields: dict[str, Any]
    if present is None:
        print(f"+ {wanted}")
        fields = {**named, "spec": wanted.spec, "labels": wanted.meta.labels}
        endpoint = _operation(wanted, "create")
    else:
        lines = difference(wanted.spec, present.spec.model_dump(mode="json"))
        labels = dict(present.meta.labels)
        lines += difference(wanted.meta.labels, labels, "labels.")
        print(f"{'~' if lines else '='} {wanted}")
        for line in lines:
            print(f"    {line}")
        if not lines:
            return
        fields = {
            **named,
            "spec": wanted.spec,
            "labels": wanted.meta.labels,
            "revision": present.meta.revision,
        }
        endpoint = _operation(wanted, "edit")
    if not dry_run:
        client.call(endpoint, build_request(endpoint, wanted.meta.name, fields, client.project))


def _present(client: Client, wanted: Wanted) -> AnyResource | None:
    endpoint = _operation(wanted, "get")
    fields = {"project": wanted.meta.project} if wanted.meta.project else {}
    try:
        found: AnyResource = client.call(
            endpoint, build_request(endpoint, wanted.meta.name, fields, client.project)
        )
    except Refused as error:
        if error.code is NOT_FOUND:
            return None
        raise
    return found


def _operation(wanted: Wanted, verb: str) -> Endpoint[Any, Any]:
    if verb not in wanted.endpoints:
        raise Refused(NOT_FOUND, f"{wanted} is not there, and can't be made")
    return wanted.endpoints[verb]


def _kinds() -> dict[str, tuple[Kind[Any], dict[str, Endpoint[Any, Any]]]]:
    found: dict[str, tuple[Kind[Any], dict[str, Endpoint[Any, Any]]]] = {}
    for service in SERVICES:
        for endpoint in declared(service):
            if endpoint.kind is not None and endpoint.http is not None:
                word = endpoint.kind.model.model_fields["kind"].default
                found.setdefault(word, (endpoint.kind, {}))[1][endpoint.verb] = endpoint
    return found


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
