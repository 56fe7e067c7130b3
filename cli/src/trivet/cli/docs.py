"""The reference pages that follow from the code: `python -m trivet.cli.docs FOLDER`.

Error codes, operations and events are declared in one place each; their pages are written from
there, and a test fails where a page is not what would be written now.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from trivet.contracts.alarm import alarm_rules
from trivet.contracts.endpoint import SERVICES, Endpoint, declared
from trivet.contracts.errors import CODES
from trivet.contracts.resource import KINDS
from trivet.contracts.service_metrics import metrics_endpoint
from trivet.contracts.service_status import status_endpoint
from trivet.runtime.nats_config import BUCKET_OWNERS
from trivet.runtime.settings import ENV_PREFIX, Settings

_PARTS = ("trivet.contracts", "trivet.runtime", "trivet.client", "trivet.cli", "trivet.host")
_MADE = "<!-- Written by `python -m trivet.cli.docs docs`; change the declarations instead. -->\n"


def pages() -> dict[str, str]:
    """Every page, by file name."""
    _import_all()
    return {
        "errors.md": _errors(),
        "operations.md": _operations(),
        "events.md": _events(),
        "alarms.md": _alarms(),
        "settings.md": _settings(),
    }


def _import_all() -> None:
    """Import whatever can declare something, so that everything is declared."""
    for part in _PARTS:
        package = importlib.import_module(part)
        for info in pkgutil.walk_packages(package.__path__, f"{part}."):
            if not info.name.endswith("__main__"):
                importlib.import_module(info.name)


def _errors() -> str:
    rows = ((f"`{c.value}`", str(c.http_status), c.title) for _, c in sorted(CODES.items()))
    return (
        f"# Error codes\n\n{_MADE}\n"
        "A code never changes once set. Over HTTP an error is `application/problem+json`\n"
        "(RFC 9457) with the code in `code` and in `type` (`/problems/<code>`), what is wrong in\n"
        "`detail` and `errors`, and what to do in `hint`. 400 is malformed: a wrong type, an\n"
        "unknown field, a value that the field can't take. 422 is well-formed but impossible.\n"
        "429 and 503 can be repeated after `Retry-After`. The command line prints the code and\n"
        "exits 1.\n\n" + _table(("Code", "HTTP", "Meaning"), rows)
    )


def _operations() -> str:
    rows = (
        (
            f"`{e.op}`",
            _http(e),
            f"`{e.policy.permission}`" if e.policy.permission else e.policy.audience.value,
            e.summary,
        )
        for service in SERVICES
        for e in (*declared(service), *_common(service))
    )
    return (
        f"# Operations\n\n{_MADE}\n"
        "Each is a command of the same words (`vm.get` is `trivet vm show`), and a subject on the\n"
        "bus. What is `internal` is for Trivet's own services and not offered over HTTP.\n\n"
        + _table(("Operation", "HTTP", "Needs", "What it does"), rows)
    )


def _common(service: str) -> tuple[Endpoint[Any, Any], ...]:
    """What every service with a bucket answers."""
    if service not in BUCKET_OWNERS:
        return ()
    return status_endpoint(service), metrics_endpoint(service)


def _http(endpoint: Endpoint[Any, Any]) -> str:
    http = endpoint.http
    if http is None:
        return "bus only"
    method = "WebSocket" if http.stream == "websocket" else http.method
    return f"`{method} {http.path}`"


def _events() -> str:
    rows = (
        (f"`{type_.type}`", f"`{kind.service}.{kind.name}.get`")
        for _, kind in sorted(KINDS.items())
        for type_ in kind.event_types
    )
    return (
        f"# Events\n\n{_MADE}\n"
        "CloudEvents 1.0, at `GET /v1/events` (server-sent events or WebSocket) and by\n"
        "`trivet event follow`. Who may `get` a resource sees its events.\n\n"
        + _table(("Type", "Seen with"), rows)
    )


def _alarms() -> str:
    text = (
        f"# Alarms\n\n{_MADE}\n"
        "What wants attention, with its cause and what to do. `trivet alarm list` shows them,\n"
        "`trivet alarm list -l state=raised` those of now, `trivet alarm ack NAME --note TEXT`\n"
        "says that somebody knows. An alarm is raised when its cause has held for the time given,\n"
        "and cleared when the cause was away for some time: for one that flips, longer each time.\n"
        "`critical`: act now; `warning`: it works, with less than it should have; `info`: worth\n"
        "knowing. The events are `trivet.<service>.alarm.raised.v1` and `...cleared.v1`; sinks\n"
        "(`[alarms] sinks` in the settings) tell them to people and other systems.\n"
    )
    for service in SERVICES:
        for rule in alarm_rules(service):
            held = f", after {rule.after_s:g} s" if rule.after_s else ""
            text += (
                f"\n## {rule.name}\n\n{rule.title}. `{rule.severity}`{held}; about a "
                f"{rule.kind.name} ({service}).\n\nWhat to do: {rule.remedy}\n"
            )
    return text


def _settings() -> str:
    text = (
        f"# Settings\n\n{_MADE}\n"
        "`/etc/trivet/trivet.toml`; each can be overridden by the environment variable that is\n"
        "named. An unknown key refuses to start. [operating.md](operating.md) says how to change\n"
        "them. Under `[plugins.<name>]` is the configuration of the driver of that name.\n"
    )
    own = {n: f for n, f in Settings.model_fields.items() if not _section(f) and n != "plugins"}
    text += f"\n## Of the node\n\n{_settings_table('', own)}"
    for name, field in Settings.model_fields.items():
        if section := _section(field):
            told = " ".join((section.__doc__ or "").split())
            text += f"\n## [{name}]\n\n{told}\n\n{_settings_table(name, section.model_fields)}"
    return text


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _settings_table(section: str, fields: Mapping[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        path = "__".join(part for part in (section, name) if part)
        default = field.get_default() if field.default_factory is None else "this host's name"
        shown = json.dumps(to_jsonable_python(default), ensure_ascii=False)
        bounds = ", ".join(
            f"{word} {getattr(limit, sign)}"
            for limit in field.metadata
            for sign, word in (("ge", "at least"), ("gt", "over"), ("le", "at most"))
            if hasattr(limit, sign)
        )
        variable = f"`{ENV_PREFIX}{path.upper()}`"
        rows.append((f"`{name}`", variable, f"`{shown}`", bounds))
    return _table(("Setting", "Environment", "Default", "Bounds"), rows)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Write all pages into the folder that is named."""
    folder = Path(sys.argv[1])
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
