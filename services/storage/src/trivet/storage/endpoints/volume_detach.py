"""Detach a volume: the wish is recorded, then its node's agent is waited for."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import Retry
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT, DetachRequest
from trivet.contracts.storage.volume import VOLUME, Volume
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.domain.attachment import detach as let_go
from trivet.storage.parts import Parts

ANSWER_BEFORE_S = 1.0


def wire(service: Service, parts: Parts) -> None:
    """Answer `volume.detach`."""
    volumes = parts.volumes

    async def detach(request: DetachRequest, call: Call) -> Nothing:
        key = VOLUME.key(request.project, request.name)

        def free(volume: Volume | None) -> bool:
            held = volume.status.attachment if volume else None
            return held is None or held.holder != request.holder

        await volumes.mutate(key, lambda v: let_go(v, request.holder))
        wait_s = (call.remaining_s or ENDPOINT.timeout_s) - ANSWER_BEFORE_S
        if not free(await volumes.wait_for(key, free, wait_s)):
            detail = f"volume {request.name} is not detached yet"
            raise Retry(NOT_READY, detail, retry_after_s=1.0)
        return Nothing()

    service.handle(ENDPOINT, detach)
