"""Bring a volume that nobody holds back to a snapshot: the wish is recorded, its node does it."""

from __future__ import annotations

from trivet.contracts.errors import REFERENCE, Refused
from trivet.contracts.storage.endpoints.volume_revert import ENDPOINT, RevertRequest
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import VOLUME, Volume
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.snapshots import newest_of, revert
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `volume.revert`."""

    async def handle(request: RevertRequest, call: Call) -> Volume:
        key = VOLUME.key(request.project, request.name)
        volume = await parts.volumes.fresh(key)
        if volume is None:
            raise not_found(VOLUME, request.name, request.project)
        snapshot = _snapshot(parts, volume, request.snapshot)
        now = parts.runtime.clock.now()
        reverting = await parts.volumes.mutate(key, lambda v: revert(v, snapshot, now))
        if reverting is None:
            raise not_found(VOLUME, request.name, request.project)
        return reverting

    service.handle(ENDPOINT, handle)


def _snapshot(parts: Parts, volume: Volume, name: str | None) -> Snapshot:
    if name is None:
        found = newest_of(volume, parts.snapshots.list(volume.meta.project))
    else:
        found = parts.snapshots.get(name, volume.meta.project)
    if found is None:
        which = f"no snapshot {name}" if name else f"no snapshot of volume {volume.meta.name}"
        raise Refused(REFERENCE, f"there is {which}", hint="see: trivet snapshot list")
    return found
