"""`?wait=`: a reply that waits until what was asked has been seen, or the time is over.

The owner of the resource does the waiting (`get` with `settle_s`); here is only the loop around
it, which outlasts owners that restart. A resource that is being deleted is waited for until it is
gone, and then shown as it was last seen.
"""

from __future__ import annotations

from typing import Any

from trivet.contracts.access import Caller
from trivet.contracts.endpoint import Endpoint, GetRequest
from trivet.contracts.errors import NOT_FOUND, Refused, Retry
from trivet.contracts.resource import AnyResource
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock

PAUSE_S = 0.2
"""Between two looks, where the owner answered before the resource had settled."""

STEP_S = 10.0
"""How long one `get` waits at most: an owner that dies meanwhile is asked again."""


async def settle(
    client: Client,
    get: Endpoint[Any, Any],
    resource: AnyResource,
    wait_s: float,
    caller: Caller | None,
    clock: Clock,
) -> AnyResource:
    """The resource once it has settled or is gone, or as it is after `wait_s` seconds.

    A service that can't be reached meanwhile is no error: the call itself was answered.
    """
    until = clock.monotonic() + wait_s
    meta = resource.meta
    while not resource.settled():
        remaining_s = until - clock.monotonic()
        if remaining_s <= 0:
            break
        step_s = round(min(STEP_S, remaining_s), 3)
        request = GetRequest(project=meta.project, name=meta.name, settle_s=step_s)
        try:
            seen = await client.call(get, request, caller=caller, timeout_s=step_s + 5)
        except Retry:
            await clock.sleep(PAUSE_S)
            continue
        except Refused as error:
            if error.code is NOT_FOUND:
                break
            raise
        if seen.meta.id != meta.id:
            break
        resource = seen
        if not resource.settled():
            await clock.sleep(min(PAUSE_S, max(0.0, until - clock.monotonic())))
    return resource
