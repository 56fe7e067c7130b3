"""Tells what the rules of a group did at this node's ports."""

from __future__ import annotations

from trivet.contracts.security.endpoints.node_firewall_seen import (
    ENDPOINT,
    SeenRequest,
    SeenResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""
    log = parts.firewall_log

    async def seen(request: SeenRequest, call: Call) -> SeenResponse:
        hits, entries = await log.hits(request.group), await log.of(request.group)
        return SeenResponse(hits=hits, entries=entries)

    service.handle(ENDPOINT, seen)
