"""Ask for a volume to be scrubbed soon."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.endpoints.volume_scrub import ENDPOINT
from trivet.contracts.storage.volume import VOLUME, Volume
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.volume_status import in_sync
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `volume.scrub`."""

    async def scrub(request: Ref, call: Call) -> Volume:
        key = VOLUME.key(request.project, request.name)
        volume = await parts.volumes.mutate(key, _asked)
        if volume is None:
            raise not_found(VOLUME, request.name, request.project)
        return volume

    service.handle(ENDPOINT, scrub)


def _asked(volume: Volume) -> Volume:
    name, good = volume.meta.name, len(in_sync(volume))
    if volume.spec.replicas < 2:
        raise Refused(
            NOT_SUPPORTED,
            f"volume {name} has one replica: there is nothing to compare it with",
            hint=f"trivet volume edit {name} --replicas 2",
        )
    if good < len(volume.status.replicas):
        raise Refused(NOT_READY, f"not all replicas of volume {name} are in sync")
    return volume.with_status(scrub=volume.status.scrub.model_copy(update={"asked": True}))
