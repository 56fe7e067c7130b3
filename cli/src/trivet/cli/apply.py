"""`trivet apply`: many resources in one document; shows what differs, then makes it so.

Documents are applied in the order of what they name (a network before the VM on it). A failure
ends it there, and what was and was not applied is said: applying again goes on from there, since
what is as asked is left alone. With `--prune`, resources that carry a label and that no document
names are deleted; nothing else ever is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from trivet.cli.documents import Wanted, difference, in_order, kinds_by_word, read_documents
from trivet.cli.session import WaitOption, connected, usage
from trivet.cli.waiting import Wait
from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.endpoint import Endpoint, ListRequest, NewMeta
from trivet.contracts.errors import NOT_FOUND, Refused, TrivetError
from trivet.contracts.resource import AnyResource, Scope

_PAGE = 1000


@dataclass
class Outcome:
    """What came of the documents so far."""

    created: int = 0
    changed: int = 0
    deleted: int = 0
    same: int = 0
    made: list[tuple[Wanted, AnyResource]] = field(default_factory=list)

    def __str__(self) -> str:
        told = f"{self.created} created, {self.changed} changed, {self.same} as they were"
        return told + (f", {self.deleted} deleted" if self.deleted else "")


def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML documents; - is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what differs.")] = False,
    prune: Annotated[
        str | None,
        typer.Option(
            "--prune", metavar="KEY=VALUE", help="Delete what has this label and is not named."
        ),
    ] = None,
    wait: WaitOption = None,
) -> None:
    """Create and change resources until they are as the file says."""
    with usage():
        wanted = in_order(read_documents(_text(file)))
        if prune is not None:
            _all_labelled(wanted, prune)
    outcome = Outcome()
    with connected() as client:
        _apply_all(client, wanted, outcome, dry_run)
        if prune is not None:
            for one in _to_prune(client, wanted, prune):
                print(f"- {one}", flush=True)
                outcome.deleted += 1
                if not dry_run:
                    _call(client, one, "delete", {})
        if wait is not None:
            for one, resource in outcome.made:
                if "get" in one.endpoints:
                    Wait(client, one.endpoints["get"], resource, wait).settled()
    print(f"{'would be: ' if dry_run else ''}{outcome}")


def _apply_all(client: Client, wanted: Sequence[Wanted], outcome: Outcome, dry_run: bool) -> None:
    """Apply in order; says what was and was not applied where one fails."""
    for number, one in enumerate(wanted):
        try:
            _apply_one(client, one, outcome, dry_run)
        except TrivetError:
            left = wanted[number + 1 :]
            print(f"! {one}: failed", flush=True)
            for other in left:
                print(f"  {other}: not applied", flush=True)
            print(f"{outcome}, 1 failed, {len(left)} not applied; apply again when it is mended")
            raise


def _apply_one(client: Client, wanted: Wanted, outcome: Outcome, dry_run: bool) -> None:
    present = _present(client, wanted)
    fields: dict[str, Any] = {"spec": dict(wanted.spec), "labels": wanted.meta.labels}
    if present is None:
        print(f"+ {wanted}", flush=True)
        verb = "create"
        _operation(wanted, verb)
        outcome.created += 1
    else:
        lines = difference(wanted.spec, present.spec.model_dump(mode="json"))
        lines += difference(wanted.meta.labels, dict(present.meta.labels), "labels")
        print(f"{'~' if lines else '='} {wanted}", flush=True)
        for line in lines:
            print(f"    {line}")
        if not lines:
            outcome.same += 1
            return
        verb, fields["revision"] = "edit", present.meta.revision
        _operation(wanted, verb)
        outcome.changed += 1
    if dry_run:
        return
    try:
        made = _call(client, wanted, verb, fields)
    except TrivetError:
        outcome.created -= verb == "create"
        outcome.changed -= verb == "edit"
        raise
    outcome.made.append((wanted, made))


def _present(client: Client, wanted: Wanted) -> AnyResource | None:
    try:
        return _call(client, wanted, "get", {})
    except Refused as error:
        if error.code is NOT_FOUND and "get" in wanted.endpoints:
            return None
        raise


def _call(client: Client, wanted: Wanted, verb: str, fields: dict[str, Any]) -> AnyResource:
    endpoint = _operation(wanted, verb)
    named = {"project": wanted.meta.project} if wanted.meta.project else {}
    request = build_request(endpoint, wanted.meta.name, {**named, **fields}, client.project)
    answer: AnyResource = client.call(endpoint, request)
    return answer


def _operation(wanted: Wanted, verb: str) -> Endpoint[Any, Any]:
    if verb not in wanted.endpoints:
        raise Refused(NOT_FOUND, f"{wanted}: there is no operation {verb} for it")
    return wanted.endpoints[verb]


def _all_labelled(wanted: Sequence[Wanted], label: str) -> None:
    """Every document must carry the label: what was made without it would never be pruned."""
    key, equals, value = label.partition("=")
    if not equals:
        raise ValueError(f"--prune {label}: not KEY=VALUE")
    for one in wanted:
        if one.meta.labels.get(key) != value:
            raise ValueError(f"{one} has no label {label}, by which --prune knows it")


def _to_prune(client: Client, wanted: Sequence[Wanted], label: str) -> Iterator[Wanted]:
    """What carries the label and is not named, that which names others first. What belongs to
    something goes with it, and is left alone."""
    projects = {w.meta.project or client.project for w in wanted} | {client.project}
    named = {
        (w.kind.name, (w.meta.project or client.project), w.meta.name)
        if w.kind.scope is Scope.PROJECT
        else (w.kind.name, None, w.meta.name)
        for w in wanted
    }
    found: list[Wanted] = []
    for kind, endpoints in kinds_by_word().values():
        if not {"list", "delete"} <= set(endpoints):
            continue
        where = sorted(projects) if kind.scope is Scope.PROJECT else [None]
        for project in where:
            for one in _labelled(client, endpoints["list"], project, label):
                place = (kind.name, one.meta.project, one.meta.name)
                if place in named or one.meta.owner or one.meta.deleting_at:
                    continue
                meta = NewMeta(name=one.meta.name, project=one.meta.project)
                spec = one.spec.model_dump(mode="json")
                found.append(Wanted(kind, endpoints, meta, spec))
    yield from reversed(in_order(found))


def _labelled(
    client: Client, endpoint: Endpoint[Any, Any], project: str | None, label: str
) -> Iterator[AnyResource]:
    request = ListRequest(project=project, limit=_PAGE, label=label)
    while True:
        page = client.call(endpoint, request)
        yield from page.items
        if page.cursor is None:
            return
        request = request.model_copy(update={"cursor": page.cursor})


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} can't be read: {error}") from error
