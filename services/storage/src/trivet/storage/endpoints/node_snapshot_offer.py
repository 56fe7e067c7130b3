"""Serve a volume of a snapshot that is kept here to another node."""

from __future__ import annotations

from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.contracts.storage.endpoints.node_snapshot_offer import ENDPOINT, OfferRequest
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.snapshot_copies import SnapshotCopies
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `snapshot.offer`."""

    async def offer(request: OfferRequest, call: Call) -> ServedReplica:
        engine = parts.engine
        if not isinstance(engine, SnapshotCopies):
            raise Refused(NOT_SUPPORTED, f"{engine.name} keeps snapshots on one node")
        settings = parts.runtime.settings
        address = settings.storage.address or settings.address
        served = await engine.offer_part(request.snapshot, request.volume, address)
        return served.model_copy(update={"node": parts.runtime.node})

    service.handle(ENDPOINT, offer)
