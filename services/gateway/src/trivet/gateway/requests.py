"""From an HTTP request to an operation's request model: pure, and the same for all operations.

A field of the request comes from the path where the endpoint's path names it, else from the
query (GET, DELETE) or from the JSON body (POST, PATCH). Some fields are for services among
themselves or have a header of their own (`If-Match`, `?wait=`): given in body or query they are
refused as any unknown field is. All that is found wrong here is `request.malformed` (400) with
each field; what is well-formed but impossible is for the owner of the resource to say (422).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from trivet.contracts.endpoint import (
    CreateRequest,
    DeleteRequest,
    EditRequest,
    Endpoint,
    GetRequest,
)
from trivet.contracts.errors import MALFORMED, FieldError, Refused
from trivet.contracts.model import Model
from trivet.runtime.call import malformed

_IF_MATCH = re.compile(r'"([0-9]{1,18})"')
_WAIT = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_RESERVED: tuple[tuple[type[Model], frozenset[str]], ...] = (
    (GetRequest, frozenset({"settle_s"})),
    (CreateRequest, frozenset({"owner", "settle_s"})),
    (EditRequest, frozenset({"revision"})),
    (DeleteRequest, frozenset({"revision", "missing_ok"})),
)


def path_fields(path: str) -> tuple[str, ...]:
    """The parameters that an endpoint's path names."""
    return tuple(re.findall(r"\{(\w+)\}", path))


def reserved_fields(request: type[Model]) -> frozenset[str]:
    """The fields of a request model that a caller from outside can't set."""
    found = [names for model, names in _RESERVED if issubclass(request, model)]
    return frozenset[str]().union(*found)


def unknown_field(where: str, accepted: Iterable[str] = ()) -> Refused:
    """The refusal of one field that nobody asked for."""
    where = _printable(where)
    error = FieldError(
        where=where, message="not a field of this request", accepted=", ".join(accepted) or None
    )
    return Refused(MALFORMED, f"not accepted: {where}", errors=(error,))


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object in a body; an empty body is an empty object.

    A name that comes twice is refused: who checks a request and who does it may each take
    another one of the two.
    """
    if not data.strip():
        return {}
    try:
        value = from_json(data, allow_inf_nan=False)
        json.loads(data, object_pairs_hook=_names_once)
    except ValueError as error:
        raise Refused(
            MALFORMED, f"the body is not JSON: {error}", hint="one JSON object in UTF-8"
        ) from error
    if not isinstance(value, dict):
        raise Refused(MALFORMED, "the body is not a JSON object", hint='as in {"spec": {...}}')
    return value


def _names_once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{_printable(twice)} is there twice")


def parse_query(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The query's parameters, each given once."""
    found: dict[str, str] = {}
    for name, value in items:
        if name in found:
            raise Refused(
                MALFORMED, f"not accepted: {_printable(name)}", hint="each parameter once"
            )
        found[name] = value
    return found


def take_wait(query: dict[str, str], bound_s: float) -> float:
    """Remove `wait` from the query and return it: seconds, 0 where it was not given."""
    text = query.pop("wait", "0")
    if not _WAIT.fullmatch(text) or float(text) > bound_s:
        error = FieldError(
            where="wait", message="not a number of seconds", accepted=f"0-{bound_s:g}"
        )
        raise Refused(MALFORMED, "not accepted: wait", errors=(error,))
    return float(text)


def parse_if_match(header: str | None) -> int | None:
    """The revision that `If-Match` names; None where any will do."""
    if header is None or header.strip() == "*":
        return None
    match = _IF_MATCH.fullmatch(header.strip())
    if match is None:
        raise Refused(
            MALFORMED, "If-Match is not a revision", hint='as in If-Match: "17", from meta.revision'
        )
    return int(match[1])


def assemble(
    endpoint: Endpoint[Any, Any],
    path: Mapping[str, str],
    query: Mapping[str, str],
    body: Mapping[str, Any],
    if_match: int | None = None,
) -> Model:
    """The request that path, query, body and `If-Match` amount to, validated."""
    model: type[Model] = endpoint.request
    given = body if _has_body(endpoint) else query
    if other := query if _has_body(endpoint) else body:
        raise unknown_field(next(iter(other)))
    known = set(model.model_fields) - reserved_fields(model) - set(path_fields_of(endpoint))
    if issubclass(model, CreateRequest):
        known |= {"meta"}
    for name in given:
        if name not in known:
            raise unknown_field(name, sorted(known))
    try:
        if not _has_body(endpoint):
            request = model.model_validate_strings({**given, **path})
        else:
            value = _create_body(given, path) if issubclass(model, CreateRequest) else given
            value = value if issubclass(model, CreateRequest) else {**value, **path}
            request = model.model_validate_json(to_json(value), strict=True)
    except ValidationError as error:
        raise malformed(error) from error
    if if_match is None:
        return request
    if "revision" not in model.model_fields:
        raise Refused(MALFORMED, f"{endpoint.op} takes no If-Match")
    return request.model_copy(update={"revision": if_match})


def path_fields_of(endpoint: Endpoint[Any, Any]) -> tuple[str, ...]:
    """The parameters that the path of an endpoint with an HTTP face names."""
    assert endpoint.http is not None
    return path_fields(endpoint.http.path)


def _has_body(endpoint: Endpoint[Any, Any]) -> bool:
    return endpoint.http is not None and endpoint.http.method in ("POST", "PATCH")


def _create_body(body: Mapping[str, Any], path: Mapping[str, str]) -> dict[str, Any]:
    """The body of a create with the project of its path in `meta`, where else it may only be
    said again."""
    meta = body.get("meta", {})
    project = path.get("project")
    if isinstance(meta, dict):
        if meta.get("project", project) != project:
            error = FieldError(
                where="meta.project", message="not the project of the path", accepted=project
            )
            raise Refused(MALFORMED, "not accepted: meta.project", errors=(error,))
        meta = {**meta, "project": project}
    return {**body, "meta": meta}


def _printable(name: str) -> str:
    return name[:64].encode("ascii", "backslashreplace").decode() or '""'
