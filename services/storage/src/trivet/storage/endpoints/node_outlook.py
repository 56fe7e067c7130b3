"""What would become of volumes if a node failed now."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.storage.endpoints.node_outlook import ENDPOINT, NodeOutlook
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.domain.outlook import at_stake
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `node.outlook`."""

    async def outlook(request: Ref, call: Call) -> NodeOutlook:
        return NodeOutlook(volumes=at_stake(parts.volumes.list(), request.name))

    service.handle(ENDPOINT, outlook)
