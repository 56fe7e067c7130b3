"""Tells the caller who it is."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.security.endpoints.whoami import ENDPOINT, WhoAmI
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def whoami(request: Nothing, call: Call) -> WhoAmI:
        return WhoAmI(user=call.caller.user, grants=call.caller.grants)

    service.handle(ENDPOINT, whoami)
