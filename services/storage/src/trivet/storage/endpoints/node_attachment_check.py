"""Tell whether a volume is attached on this node, and healthy, and has space to write."""

from __future__ import annotations

from trivet.contracts.storage.endpoints.node_attachment_check import (
    ENDPOINT,
    CheckRequest,
    CheckResponse,
)
from trivet.contracts.storage.engine import MemberState
from trivet.contracts.storage.volume import ReplicaState
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.domain.volume_status import replica_on
from trivet.storage.parts import Parts

FAILED = MemberState.FAILED
COUNTED = (ReplicaState.IN_SYNC, ReplicaState.REBUILDING)
MENDED_S = 3.0
"""How long a caller waits for what a failed replica needs to leave the graph."""


def wire(service: Service, parts: Parts) -> None:
    """Answer `attachment.check`."""

    async def check(request: CheckRequest, call: Call) -> CheckResponse:
        found = await parts.engine.attached(request.volume)
        volume = parts.volumes.by_id(request.volume)
        mine = replica_on(volume, parts.runtime.node) if volume is not None else None
        # Nobody waits for space where the replica has left the graph for the want of it.
        waits_for_room = mine is not None and mine.state in COUNTED
        pool = (volume.status.pool if volume and waits_for_room else None) or ""
        starved = await parts.pool_agent.starved(pool)
        there = found[0] if found else None
        if there is not None and request.mended and parts.replicated is not None:
            there = await parts.replicated.mended(there, MENDED_S)
        failed = [n for n, s in (there.members if there else {}).items() if s is FAILED]
        waits = f"{', '.join(sorted(failed))} failed" if failed else ""
        return CheckResponse(attached=there, starved=starved, waits=waits)

    service.handle(ENDPOINT, check)
