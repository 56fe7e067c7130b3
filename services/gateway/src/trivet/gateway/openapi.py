"""The OpenAPI 3.1 document, from the endpoint declarations alone.

Each operation says its policy (`x-trivet-policy`), its errors, and how it waits. Models become
components; fields that a caller can't set (see `requests`) are left out of the requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema

from trivet.contracts.access import Audience
from trivet.contracts.endpoint import EditRequest, Endpoint, Http
from trivet.contracts.errors import CODES
from trivet.contracts.model import Model
from trivet.gateway.health import Health, Version, product_version
from trivet.gateway.requests import path_fields, reserved_fields
from trivet.gateway.routes import ApiRoute

Json = dict[str, Any]
_REF = "#/components/schemas/{model}"
_NAME_SCHEMA = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
_COMMON_ERRORS = (
    "400",
    "401",
    "403",
    "404",
    "408",
    "409",
    "412",
    "413",
    "415",
    "422",
    "429",
    "431",
    "500",
    "503",
)


def document(table: Iterable[ApiRoute]) -> Json:
    """The whole document."""
    table = tuple(table)
    schemas = _Schemas(table)
    paths: dict[str, Json] = _own_paths(schemas)
    for route in table:
        entry = paths.setdefault(route.http.path, {})
        entry[route.http.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Trivet",
            "version": product_version().version,
            "description": "The API of a Trivet cluster. Errors are RFC 9457 problem documents; "
            "their codes never change once set.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name} for name in sorted({r.endpoint.service for r in table})],
        "paths": paths,
        "components": {
            "schemas": {**schemas.definitions, "Problem": _problem_schema()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "responses": _error_responses(),
        },
    }


class _Schemas:
    """The schemas of all models, by model and by whether they are read or sent."""

    def __init__(self, table: Iterable[ApiRoute]) -> None:
        wanted: dict[tuple[type[Model], JsonSchemaMode], None] = {
            (Health, "serialization"): None,
            (Version, "serialization"): None,
        }
        for route in table:
            wanted[route.endpoint.request, "validation"] = None
            if route.http.stream is None:
                wanted[route.endpoint.response, "serialization"] = None
            if issubclass(route.endpoint.request, EditRequest) and route.endpoint.kind:
                wanted[route.endpoint.kind.spec_model, "validation"] = None
        refs, whole = models_json_schema(list(wanted), ref_template=_REF)
        self._refs = refs
        self.definitions: dict[str, Json] = whole.get("$defs", {})

    def response(self, model: type[Model]) -> Json:
        """A reference to what is answered."""
        return dict(self._refs[model, "serialization"])

    def patch(self, spec: type[Model]) -> Json:
        """A merge patch on a spec: any of its fields, null for back to its default."""
        properties, _ = self.fields(spec)
        given = {name: {"anyOf": [value, {"type": "null"}]} for name, value in properties.items()}
        return {"type": "object", "properties": given, "additionalProperties": False}

    def fields(self, model: type[Model]) -> tuple[dict[str, Json], tuple[str, ...]]:
        """The properties of a request, and which of them must be given."""
        ref = self._refs[model, "validation"]["$ref"]
        schema = self.definitions[ref.rsplit("/", 1)[1]]
        return schema.get("properties", {}), tuple(schema.get("required", ()))


def _operation(route: ApiRoute, schemas: _Schemas) -> Json:
    endpoint = route.endpoint
    name = endpoint.op if route.http == endpoint.http else f"{endpoint.op}-all"
    properties, required = schemas.fields(endpoint.request)
    in_path = path_fields(route.http.path)
    hidden = reserved_fields(endpoint.request) | set(in_path)
    if endpoint.http != route.http:
        hidden |= {"project"}
    free = {k: v for k, v in properties.items() if k not in hidden}
    if "{project}" not in route.http.path:
        free.pop("project", None)
    operation: Json = {
        "operationId": name,
        "summary": endpoint.summary,
        "tags": [endpoint.service],
        "parameters": [*(_parameter(p, "path", _NAME_SCHEMA, True) for p in in_path)],
        "x-trivet-policy": _policy(endpoint),
        "responses": _responses(route, schemas),
    }
    if route.http.stream == "websocket":
        operation["x-trivet-websocket"] = True
    if endpoint.policy.audience is Audience.PUBLIC:
        operation["security"] = []
    if route.http.method in ("GET", "DELETE"):
        operation["parameters"] += [
            _parameter(k, "query", v, k in required) for k, v in free.items()
        ]
    else:
        if issubclass(endpoint.request, EditRequest) and endpoint.kind is not None:
            free["spec"] = schemas.patch(endpoint.kind.spec_model)
        operation["requestBody"] = _body(route.http, free, required)
    if route.http.method == "POST":
        operation["parameters"].append(_IDEMPOTENCY_KEY)
    if "revision" in properties and "revision" in hidden:
        operation["parameters"].append(_IF_MATCH)
    if route.waits:
        operation["parameters"].append(_WAIT)
    return operation


_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
    "description": "Only if the resource still has this revision.",
}
_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "description": "A repeat under the same key and token is answered as the first time, for 24 h.",
}
_WAIT: Json = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "number", "minimum": 0, "maximum": 60},
    "description": "Answer when the resource has settled (or is gone), or after so many seconds.",
}


def _policy(endpoint: Endpoint[Any, Any]) -> Json:
    policy = endpoint.policy
    told: Json = {"audience": policy.audience.value}
    if policy.permission:
        told["permission"] = policy.permission
    return told


def _parameter(name: str, where: str, schema: Mapping[str, Any], required: bool) -> Json:
    return {"name": name, "in": where, "required": required, "schema": dict(schema)}


def _body(http: Http, properties: Mapping[str, Json], required: tuple[str, ...]) -> Json:
    must = [name for name in required if name in properties]
    schema: Json = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    if must:
        schema["required"] = must
    media = "application/merge-patch+json" if http.method == "PATCH" else "application/json"
    content = {"application/json": {"schema": schema}, media: {"schema": schema}}
    return {"required": bool(must), "content": content}


def _responses(route: ApiRoute, schemas: _Schemas) -> Json:
    good: Json = {
        "description": "What was asked for, as it is now.",
        "headers": _HEADERS,
    }
    errors = {s: {"$ref": f"#/components/responses/Problem{s}"} for s in _COMMON_ERRORS}
    match route.http.stream:
        case "websocket":
            good = {"description": "A WebSocket: binary messages, the bytes of the stream."}
            errors["426"] = {"$ref": "#/components/responses/Problem426"}
        case "body":
            good["content"] = {route.http.media: {"schema": {"type": "string", "format": "binary"}}}
        case None:
            good["content"] = {
                "application/json": {"schema": schemas.response(route.endpoint.response)}
            }
    return {str(route.http.status): good, **errors}


def _error_responses() -> Json:
    statuses: dict[int, list[str]] = {}
    for code in CODES.values():
        statuses.setdefault(code.http_status, []).append(code.value)
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        f"Problem{status}": {
            "description": "Codes: " + ", ".join(sorted(statuses.get(int(status), ["internal"]))),
            "headers": _RETRY_HEADERS if status in ("429", "503") else _HEADERS,
            "content": content,
        }
        for status in (*_COMMON_ERRORS, "426")
    }


_HEADERS: Json = {"X-Request-Id": {"schema": {"type": "string"}}}
_RETRY_HEADERS: Json = {
    **_HEADERS,
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
}


def _problem_schema() -> Json:
    text = {"type": "string"}
    field = {"type": "object", "properties": {"where": text, "message": text, "accepted": text}}
    return {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "code", "title", "status", "detail", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "code": {"type": "string", "enum": sorted(CODES)},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "hint": text,
            "request_id": text,
            "errors": {"type": "array", "items": field},
        },
    }


def _own_paths(schemas: _Schemas) -> dict[str, Json]:
    """The paths that are the gateway's own."""
    public = {"audience": Audience.PUBLIC.value}
    answers: tuple[tuple[str, str, str, Json], ...] = (
        ("/v1/health", "health", "Whether each service answers.", schemas.response(Health)),
        ("/v1/version", "version", "What runs here.", schemas.response(Version)),
        ("/v1/openapi.json", "openapi", "This document.", {"type": "object"}),
    )
    paths: dict[str, Json] = {
        path: {
            "get": {
                "operationId": name,
                "summary": summary,
                "security": [],
                "x-trivet-policy": public,
                "responses": {
                    "200": {
                        "description": summary,
                        "content": {"application/json": {"schema": schema}},
                    }
                },
            }
        }
        for path, name, summary, schema in answers
    }
    health = paths["/v1/health"]["get"]["responses"]
    health["503"] = {**health["200"], "description": "A service does not answer."}
    text, number = {"type": "string"}, {"type": "integer", "minimum": 0}
    paths["/v1/events"] = {
        "get": {
            "operationId": "events",
            "summary": "Follow events (CloudEvents), as server-sent events or over a WebSocket.",
            "x-trivet-policy": {"audience": Audience.AUTHENTICATED.value},
            "parameters": [
                {"name": "subject", "in": "query", "schema": text, "example": "compute.>"},
                {"name": "since", "in": "query", "schema": number},
                {"name": "project", "in": "query", "schema": text},
                {"name": "Last-Event-ID", "in": "header", "schema": text},
            ],
            "responses": {
                "200": {"description": "Events.", "content": {"text/event-stream": {}}},
                **{
                    s: {"$ref": f"#/components/responses/Problem{s}"}
                    for s in ("400", "401", "429", "503")
                },
            },
        }
    }
    return paths
