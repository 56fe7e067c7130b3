"""Errors as callers see them: RFC 9457 problem details with Trivet's stable codes.

`type` is a path that never changes once set, one a code; `docs/errors.md` lists them all. What
is not a `TrivetError` is our own fault and says nothing but the request id, under which the log
has the rest.
"""

from __future__ import annotations

import logging
import math

from fastapi.responses import Response
from pydantic_core import to_json

from trivet.contracts.errors import INTERNAL, Fatal, TrivetError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
DEFAULT_RETRY_S = 1.0
DETAIL_CHARS = 2000
"""A detail may quote what was sent."""

REQUEST_ID = "X-Request-Id"


_HINTS = {
    400: "GET /v1/openapi.json says what is accepted",
    401: "Authorization: Bearer <token>; `trivet token create` makes one",
    403: "an administrator can bind a role that allows it",
    404: "list what is there: the name may have a slip, or be of another project",
    408: "send it in one go",
    409: "read it again, and decide anew",
    412: "read it again, and decide anew",
    422: "change what `detail` names; repeating it alike is useless",
    429: "come again after Retry-After seconds",
    500: "nothing that you sent is wrong: an administrator finds `request_id` in the log",
    503: "come again after Retry-After seconds; `trivet health` shows which service is away",
    507: "make room, or ask for less",
}
"""What to do, where the error itself does not say it."""


def problem_type(code: str) -> str:
    """The `type` of a code: a path relative to the API's address."""
    return f"/problems/{code}"


def problem(error: TrivetError, request_id: str) -> dict[str, object]:
    """The members of the problem document."""
    members: dict[str, object] = {
        "type": problem_type(error.code.value),
        "code": error.code.value,
        "title": error.code.title,
        "status": error.code.http_status,
        "detail": error.detail[:DETAIL_CHARS],
        "request_id": request_id,
    }
    if hint := error.hint or (None if error.errors else _HINTS.get(error.code.http_status)):
        members["hint"] = hint
    if error.errors:
        members["errors"] = [field.model_dump(exclude_none=True) for field in error.errors]
    return members


def headers_of(error: TrivetError, request_id: str) -> dict[str, str]:
    """The headers that go with the problem: when to come again, how to say who one is."""
    headers = {REQUEST_ID: request_id}
    if error.code.http_status in (429, 503) or error.retry_after_s is not None:
        after_s = error.retry_after_s if error.retry_after_s is not None else DEFAULT_RETRY_S
        headers["Retry-After"] = str(max(1, math.ceil(after_s)))
    if error.code.http_status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trivet"'
    return headers


def problem_response(error: TrivetError, request_id: str) -> Response:
    """The reply that tells the error."""
    return Response(
        to_json(problem(error, request_id)),
        status_code=error.code.http_status,
        media_type=MEDIA_TYPE,
        headers=headers_of(error, request_id),
    )


def as_trivet_error(error: Exception, request_id: str) -> TrivetError:
    """Any exception as an error to tell; a foreign one goes to the log, and only there."""
    if isinstance(error, TrivetError):
        return error
    log.error("request %s failed unexpectedly", request_id, exc_info=error)
    detail = f"the gateway failed unexpectedly; request {request_id}"
    return Fatal(INTERNAL, detail, hint="see the gateway's log")
