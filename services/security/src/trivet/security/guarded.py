"""The common operations where it matters who calls: changes are judged with the caller.

A change and the look that allowed it are made under one lock, so that those of one instance
don't get in each other's way; between instances it is the store's compare-and-swap that decides
(`endpoints/users.py` for the last administrator).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trivet.contracts.access import Caller
from trivet.contracts.endpoint import Crud, Endpoint
from trivet.contracts.model import Model
from trivet.contracts.resource import ResourceT
from trivet.runtime.call import Call
from trivet.runtime.crud import CrudHandlers, Hooks
from trivet.runtime.service import Service
from trivet.security.parts import People

HooksFor = Callable[[Caller], Hooks[ResourceT]]


def serve_guarded(
    service: Service, people: People, crud: Crud[ResourceT], hooks_for: HooksFor[ResourceT]
) -> None:
    """Answer the common operations, with the hooks that go with each call's caller."""
    collection = service.collection(crud.kind)

    def serve(endpoint: Endpoint[Any, Any]) -> None:
        async def handle(request: Any, call: Call) -> Model:
            handlers = CrudHandlers(service, collection, hooks_for(call.caller))
            operation = getattr(handlers, endpoint.verb)
            if not endpoint.changes:
                shown: Model = await operation(request, call)
                return shown
            async with people.lock:
                changed: Model = await operation(request, call)
                return changed

        service.handle(endpoint, handle)

    for endpoint in crud.endpoints:
        serve(endpoint)
