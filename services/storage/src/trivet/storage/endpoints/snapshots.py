"""The common operations on snapshots: of volumes that are there and can be cut together."""

from __future__ import annotations

from trivet.contracts.errors import INVALID, REFERENCE, FieldError, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.endpoints.snapshots import CRUD
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service
from trivet.storage.domain.snapshot_plan import choose_node
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on snapshots."""

    async def admit(before: Snapshot | None, after: Snapshot) -> Snapshot:
        if before is not None:
            immutable(before.spec, after.spec, "volumes")
            return after
        volumes = [_volume(parts, after, n, name) for n, name in enumerate(after.spec.volumes)]
        if choose_node(volumes) is None:
            raise Refused(
                INVALID,
                "spec.volumes: no node has a replica in sync of all of them",
                hint="only volumes with replicas on one node are cut together",
            )
        return after

    serve_crud(service, CRUD, Hooks[Snapshot](admit, ("storage",)))


def _volume(parts: Parts, snapshot: Snapshot, number: int, name: str) -> Volume:
    volume = parts.volumes.get(name, snapshot.meta.project)
    if volume is None or volume.meta.deleting_at is not None:
        wrong = FieldError(where=f"spec.volumes.{number}", message=f"there is no volume {name}")
        raise Refused(REFERENCE, f"{wrong.where}: {wrong.message}", errors=(wrong,))
    if volume.status.phase not in (Phase.READY, Phase.DEGRADED):
        raise Refused(NOT_READY, f"volume {name} is {volume.status.phase}")
    return volume
