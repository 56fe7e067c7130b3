"""Serve this node's replica of a volume under an epoch."""

from __future__ import annotations

from trivet.contracts.storage.endpoints.node_replica_serve import ENDPOINT, ServeRequest
from trivet.contracts.storage.engine import ServedReplica
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `replica.serve`."""

    async def serve(request: ServeRequest, call: Call) -> ServedReplica:
        return await parts.serving.serve(
            request.volume, request.epoch, remote=request.remote, fresh=request.fresh
        )

    service.handle(ENDPOINT, serve)
