"""From an operation's request to an HTTP request, and from the reply back. Pure.

The other side of the gateway's own mapping, from the same declarations: fields that the path
names go into the path, the rest into the query or the body; a revision becomes `If-Match`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError
from pydantic_core import from_json

from trivet.contracts.endpoint import CreateRequest, Endpoint, ListRequest
from trivet.contracts.errors import (
    CODES,
    INTERNAL,
    NOT_SUPPORTED,
    Code,
    Fatal,
    FieldError,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.model import Model

_PARAMETER = re.compile(r"\{(\w+)\}")
_NOT_SENT = frozenset({"settle_s", "missing_ok", "owner", "revision"})


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request to be; `body` None: it has none."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None


def http_request(endpoint: Endpoint[Any, Any], request: Model, wait_s: float = 0) -> HttpRequest:
    """The HTTP request for `request`. Raises `Refused` for what has no HTTP face."""
    if endpoint.http is None:
        raise Refused(NOT_SUPPORTED, f"{endpoint.op} is not offered over HTTP")
    values = request.model_dump(mode="json", exclude_unset=True)
    revision = values.get("revision")
    template = endpoint.http.path
    if isinstance(request, CreateRequest):
        in_path = {"project": request.meta.project}
    else:
        in_path = {name: values.pop(name, None) for name in _PARAMETER.findall(template)}
    if isinstance(request, ListRequest) and in_path.get("project", "") is None and endpoint.kind:
        template = f"/v1/{endpoint.kind.plural}"
    path = _PARAMETER.sub(lambda m: _segment(endpoint, m[1], in_path.get(m[1])), template)
    rest = {k: v for k, v in values.items() if k not in _NOT_SENT and v is not None}
    query = {"wait": f"{wait_s:g}"} if wait_s else {}
    headers = {} if revision is None else {"If-Match": f'"{revision}"'}
    if endpoint.http.method in ("GET", "DELETE"):
        query.update((k, _text(v)) for k, v in rest.items())
        return HttpRequest(endpoint.http.method, path, query, headers)
    return HttpRequest(endpoint.http.method, path, query, headers, rest)


def _segment(endpoint: Endpoint[Any, Any], name: str, value: str | None) -> str:
    if not value:
        raise Refused(NOT_SUPPORTED, f"{endpoint.op} needs a {name}")
    return quote(value, safe="")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def error_of(status: int, content: bytes, retry_after: str | None) -> TrivetError:
    """The error that a reply tells, as it was raised on the other side."""
    try:
        told = from_json(content)
        code = CODES.get(told["code"]) or Code(told["code"], status, told["title"])
        errors = tuple(FieldError.model_validate(e) for e in told.get("errors", ()))
        detail, hint = str(told["detail"]), told.get("hint")
    except (ValueError, KeyError, TypeError, ValidationError):
        code, errors, hint = INTERNAL, (), "is this the address of a Trivet gateway?"
        detail = f"the reply was {status}, without a problem document"
    after = float(retry_after) if retry_after and retry_after.isdigit() else None
    # What says when to come again was not refused for good, whatever its status (a request
    # whose first one is still at work has 409).
    if status in (429, 503) or after is not None:
        return Retry(code, detail, hint=hint, errors=errors, retry_after_s=after)
    return (Fatal if status >= 500 else Refused)(code, detail, hint=hint, errors=errors)
