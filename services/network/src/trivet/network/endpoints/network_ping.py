"""Asks a node that has the network to send an echo request from the network's gateway there."""

from __future__ import annotations

from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.network.codes import NOT_ON_NODE
from trivet.contracts.network.endpoints.network_ping import ENDPOINT, PingRequest, PingResponse
from trivet.contracts.network.endpoints.node_ping import ENDPOINT as NODE_PING
from trivet.contracts.network.endpoints.node_ping import NodePingRequest
from trivet.contracts.network.network import NETWORK
from trivet.network.domain.addresses import normal
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def ping(request: PingRequest, call: Call) -> PingResponse:
        network = parts.networks.get(request.name, request.project)
        if network is None:
            raise not_found(NETWORK, request.name, request.project)
        address = normal(request.address)
        if address is None:
            raise Refused(INVALID, f"{request.address} is no address")
        ports = [
            p
            for p in parts.ports.list(request.project)
            if p.status.network_id == network.meta.id and p.status.node
        ]
        nodes = sorted({p.status.node for p in ports if p.status.node})
        # A guest answers to the gateway of its own node: all have the same address.
        near = [p.status.node for p in ports if p.status.node and address in p.status.addresses]
        nodes = near or nodes
        wanted = [n for n in nodes if request.node in (None, n)]
        if not wanted:
            hint = f"it is on {', '.join(nodes)}" if nodes else "no port of it is plugged anywhere"
            raise Refused(NOT_ON_NODE, f"network {request.name} is not there", hint=hint)
        asked = NodePingRequest(
            network=network.meta.id, address=address, timeout_s=request.timeout_s
        )
        return await parts.runtime.client.call(NODE_PING, asked, node=wanted[0])

    service.handle(ENDPOINT, ping)
