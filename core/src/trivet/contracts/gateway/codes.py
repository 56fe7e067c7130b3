"""The error codes of the gateway: what is wrong with a request before a service sees it."""

from trivet.contracts.errors import code

NO_ROUTE = code("request.no_route", 404, "Nothing is at this path")
METHOD = code("request.method_not_allowed", 405, "The path does not take this method")
TOO_SLOW = code("request.too_slow", 408, "The request did not arrive in time")
TOO_LARGE = code("request.too_large", 413, "The request is too large")
HEAD_TOO_LARGE = code("request.head_too_large", 431, "The request's head is too large")
KEY_REUSED = code("idempotency.key_reused", 422, "The key came with another request")
KEY_IN_PROGRESS = code("idempotency.in_progress", 409, "The first request is still at work")
MEDIA_TYPE = code("request.media_type", 415, "The body is not of a type that is taken")
UPGRADE = code("request.upgrade_required", 426, "The path is for a WebSocket")
