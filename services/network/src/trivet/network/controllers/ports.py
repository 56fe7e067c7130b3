"""Ports, cluster-wide: the end of those that no node will end.

A port ends at its node, once its tap is proven gone. One that never had a node ends here at
once; one whose node has not been heard for a while ends here too, since a dead node must not
keep anybody from deleting: should the node come back, it finds a tap that nobody wants, and
removes it before anything else.
"""

from __future__ import annotations

from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import Retry
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.network.port import Port
from trivet.network.holdings import Holdings
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

NODE_SILENT_S = 60.0
ASK_AGAIN_S = 10.0


class PortController:
    """Ends ports that have no node, or a silent one."""

    def __init__(self, service: Service, ports: Collection[Port], holdings: Holdings) -> None:
        self._runtime = service.runtime
        self._ports = ports
        self._holdings = holdings
        self._reconciler = Reconciler(
            "ports",
            self._reconcile,
            clock=service.runtime.clock,
            keys=ports.keys,
            calm=lambda key: not self._goes(key),
        )
        ports.on_change(self._reconciler.wake)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _goes(self, key: str) -> bool:
        port = self._ports.by_key(key)
        return port is not None and port.meta.deleting_at is not None

    async def _reconcile(self, key: str) -> float | None:
        port = self._ports.by_key(key)
        if port is None or port.meta.deleting_at is None:
            return None
        if port.spec.node is not None:
            waited_s = elapsed_s(port.meta.deleting_at, self._runtime.clock.now())
            if waited_s < NODE_SILENT_S:
                return NODE_SILENT_S - waited_s
            if await self._answers(port.spec.node):
                return ASK_AGAIN_S
        await self._holdings.finish_port(self._ports, port)
        return None

    async def _answers(self, node: str) -> bool:
        try:
            await self._runtime.client.call(BINDINGS, Nothing(), node=node)
        except Retry:
            return False
        return True
