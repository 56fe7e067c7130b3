"""When a call is sent again: only where that can't do a thing twice. Pure.

What never reached a service (no connection, 429, nobody listening) can be sent again whatever it
was. What may have happened (a timeout, a connection that broke on the way) can be sent again if
it only reads, or if it is a POST under an `Idempotency-Key`, whose repeat gets the first answer.
An edit or a deletion of unknown outcome is the caller's to look at.
"""

from __future__ import annotations

from trivet.contracts.errors import TIMEOUT, TOO_MANY, UNAVAILABLE, Retry, TrivetError
from trivet.contracts.gateway.codes import KEY_IN_PROGRESS

FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 5.0
NOT_DONE = (TOO_MANY, UNAVAILABLE)


class Unsent(Retry):
    """The gateway could not be reached at all: nothing was done."""


def may_repeat(error: TrivetError, method: str, *, keyed: bool) -> bool:
    """Whether the same call may be sent again after `error`."""
    if error.code is KEY_IN_PROGRESS:
        return keyed
    if not isinstance(error, Retry):
        return False
    if isinstance(error, Unsent) or (error.code in NOT_DONE and error.retry_after_s is not None):
        return True
    return method == "GET" or (method == "POST" and keyed and error.code in (TIMEOUT, UNAVAILABLE))


def pause_s(attempt: int, error: TrivetError) -> float:
    """How long to wait before attempt `attempt` (from 1) is repeated."""
    grown = min(FIRST_PAUSE_S * 2.0 ** (attempt - 1), LAST_PAUSE_S)
    return max(grown, error.retry_after_s or 0.0)
