"""What commands print: tables for people, JSON and YAML for programs.

Tables have no frames and, when piped, no width: a line is a row, whatever its length. Text that
comes from others (a guest's console, a label) has its control characters shown, not obeyed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trivet.cli import yaml_text
from trivet.contracts.model import Model
from trivet.contracts.resource import AnyResource, Resource

PIPED_WIDTH = 100_000
_CONTROL = {c: repr(chr(c))[1:-1] for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}


class Format(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


COLUMNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "vm": (
        ("POWER", "status.power"),
        ("NODE", "status.node"),
        ("VCPUS", "spec.vcpus"),
        ("MEMORY", "spec.memory_mib"),
        ("ADDRESSES", "status.addresses"),
    ),
    "volume": (
        ("SIZE", "spec.size_gib"),
        ("REPLICAS", "status.replicas"),
        ("ATTACHED", "status.attachment.node"),
    ),
    "image": (("FORMAT", "status.format"), ("PROGRESS", "status.progress_pct")),
    "network": (("SUBNETS", "spec.subnets"), ("VNI", "status.vni"), ("PORTS", "status.ports")),
    "port": (
        ("NETWORK", "spec.network"),
        ("NODE", "status.node"),
        ("MAC", "status.mac"),
        ("ADDRESSES", "status.addresses"),
    ),
    "node": (
        ("VCPUS", "status.allocatable_vcpus"),
        ("MEMORY", "status.allocatable_memory_mib"),
        ("ACCEL", "status.inventory.accel"),
        ("ADDRESS", "status.address"),
    ),
    "disk": (
        ("NODE", "status.node"),
        ("DEVICE", "status.facts.device"),
        ("ROLE", "spec.role"),
        ("HOLDS", "status.facts.holds"),
    ),
    "pool": (("ENGINE", "status.engine"), ("CLAIMED", "status.claimed_bytes")),
    "user": (("ROLES", "spec.roles"), ("DISABLED", "spec.disabled")),
    "token": (("USER", "spec.user"), ("EXPIRES", "spec.expires_at")),
    "alarm": (
        ("SEVERITY", "status.severity"),
        ("STATE", "status.state"),
        ("ACKNOWLEDGED", "spec.acknowledged_by"),
        ("CAUSE", "status.cause"),
    ),
    "role": (("PERMISSIONS", "spec.permissions"),),
}
_UNITS = {"memory_mib": " MiB", "allocatable_memory_mib": " MiB", "size_gib": " GiB"}
_UNITS |= {"progress_pct": " %", "claimed_bytes": " B"}


_FOR_PROGRAMS = frozenset({"hash", "previous", "token_id"})
"""Fields of rows that a table leaves out."""


def visible(text: str) -> str:
    """The text with its control characters shown."""
    return text.translate(_CONTROL)


def print_json(value: Any) -> None:
    """One JSON value, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_value(value: Any, format_: Format) -> None:
    """A value of plain types, as JSON or YAML (which tables of one thing are, too)."""
    if format_ is Format.JSON:
        print_json(value)
    else:
        print(yaml_text.dump(value), end="")


def print_resources(kind: str, items: Sequence[AnyResource], format_: Format) -> None:
    """A list of resources."""
    if format_ is not Format.TABLE:
        print_value({"items": [item.model_dump(mode="json") for item in items]}, format_)
        return
    projects = {item.meta.project for item in items}
    columns = COLUMNS.get(kind, ())
    heads = ["NAME", "PHASE", *(head for head, _ in columns), "AGE"]
    rows = [
        [item.meta.name, item.status.phase.value]
        + [cell(item, path) for _, path in columns]
        + [age(item.meta.created_at, datetime.now(UTC))]
        for item in items
    ]
    if len(projects) > 1:
        heads.insert(0, "PROJECT")
        for row, item in zip(rows, items, strict=True):
            row.insert(0, item.meta.project or "")
    print_table(heads, rows)


def print_model(model: Model, format_: Format) -> None:
    """One response: a resource, rows, a text, or plain fields."""
    values = model.model_dump(mode="json")
    if format_ is not Format.TABLE:
        print_value(values, format_)
    elif isinstance(model, Resource):
        print_value(_readable(values), Format.YAML)
    elif set(values) == {"text"}:
        print(visible(values["text"]) if sys.stdout.isatty() else values["text"], end="")
    elif rows := _only_rows(values):
        heads = list(rows[0])
        print_table([h.upper() for h in heads], [[_text(r[h]) for h in heads] for r in rows])
    else:
        print_value(_without_empty(values), Format.YAML)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns under their heads."""
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(Text(head), overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*(Text(visible(value)) for value in row))
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    console = Console(width=width, markup=False, highlight=False, file=sys.stdout)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def cell(resource: AnyResource, path: str) -> str:
    """The value at a dotted path, as a table shows it."""
    value: Any = resource.model_dump(mode="json")
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    text = _text(value)
    return text + _UNITS.get(path.rsplit(".", 1)[-1], "") if text else "-"


def age(then: datetime, now: datetime) -> str:
    """How long ago, in its largest unit."""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, dict):
        if "node" in value and "state" in value:
            return f"{value['node']}:{value['state']}"
        return " ".join(f"{k}={_text(v)}" for k, v in value.items() if v not in (None, "", [], {}))
    return str(value)


def _only_rows(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a response that is one list of objects, flattened by one level."""
    lists = [v for v in values.values() if isinstance(v, list)]
    if len(lists) != 1 or set(values) - {"cursor"} != {k for k in values if values[k] is lists[0]}:
        return []
    flat = []
    for row in lists[0]:
        inner = {
            k: v for value in row.values() if isinstance(value, dict) for k, v in value.items()
        }
        whole = {**{k: v for k, v in row.items() if not isinstance(v, dict)}, **inner}
        flat.append({k: v for k, v in whole.items() if k not in _FOR_PROGRAMS})
    return flat


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """A resource for people: name first, without what is empty or only the store's."""
    meta = values["meta"]
    shown = {
        "name": meta["name"],
        "project": meta["project"],
        "kind": values["kind"],
        "phase": values["status"].pop("phase"),
        "labels": meta["labels"],
        "id": meta["id"],
        "revision": meta["revision"],
        "created": meta["created_at"],
        "deleting": meta["deleting_at"],
        "spec": values["spec"],
        "status": values["status"],
    }
    return dict(_without_empty(shown))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: _without_empty(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, "", [], {})}
    if isinstance(value, list):
        return [_without_empty(v) for v in value]
    return value
