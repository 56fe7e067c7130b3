"""Put a node into maintenance: refused where volumes would be unavailable without it, unless
their data are moved away, or that is accepted."""

from __future__ import annotations

from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.node import Node
from trivet.contracts.endpoint import EditRequest
from trivet.contracts.errors import Refused
from trivet.contracts.storage.codes import AT_STAKE
from trivet.contracts.storage.endpoints.node_maintenance import ENDPOINT, MaintenanceRequest, Mode
from trivet.contracts.storage.outlook import Effect
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.domain.outlook import at_stake
from trivet.storage.parts import Parts

NAMED = 5


def wire(service: Service, parts: Parts) -> None:
    """Answer `node.maintenance`."""

    async def maintenance(request: MaintenanceRequest, call: Call) -> Node:
        on = request.mode is Mode.ON
        if on and not request.move and not request.force:
            _check(parts, request.name)
        spec = {"maintenance": on, "evacuate": on and request.move}
        edit = EditRequest(name=request.name, spec=spec)
        node: Node = await parts.runtime.client.call(NODES.edit, edit)
        return node

    service.handle(ENDPOINT, maintenance)


def _check(parts: Parts, node: str) -> None:
    touched = at_stake(parts.volumes.list(), node)
    worst = [v for v in touched if v.effect is Effect.UNAVAILABLE]
    if worst:
        named = ", ".join(v.volume for v in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        raise Refused(
            AT_STAKE,
            f"{len(worst)} volumes would be unavailable without {node}: {named}{more}",
            hint="move their data away first (--move), or accept that (--force)",
        )
