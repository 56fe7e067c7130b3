"""Networks, cluster-wide: how many ports they have, and their end.

A network that is being deleted goes when no port has a claim on it any more: a port that is
just being made has claimed before it looked whether the network is still open.
"""

from __future__ import annotations

from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.contracts.resource import Phase
from trivet.network.holdings import Holdings
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

COUNT_EVERY_S = 1.0
AGAIN_S = 1.0


class NetworkController:
    """Keeps networks' status, and ends those that are deleted."""

    def __init__(
        self,
        service: Service,
        networks: Collection[Network],
        ports: Collection[Port],
        holdings: Holdings,
    ) -> None:
        self._networks = networks
        self._ports = ports
        self._holdings = holdings
        self._runtime = service.runtime
        self._counted_at: dict[str, float] = {}
        self._reconciler = Reconciler(
            "networks", self._reconcile, clock=service.runtime.clock, keys=networks.keys
        )
        networks.on_change(self._reconciler.wake)
        ports.on_change(self._port_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _port_changed(self, key: str) -> None:
        # The key names the project; which network a port was on is not told once it is gone.
        project = key.split(".")[1]
        for network in self._networks.list(project):
            self._reconciler.wake(self._networks.key_of(network))

    async def _reconcile(self, key: str) -> float | None:
        network = self._networks.by_key(key)
        if network is None:
            return None
        if (wait_s := self._counted_lately(network)) > 0:
            return wait_s
        ports = [p for p in self._ports.list() if p.status.network_id == network.meta.id]
        if network.meta.deleting_at is not None:
            if ports:
                return None
            if await self._holdings.members(network.meta.id):
                return AGAIN_S
            await self._holdings.finish_network(self._networks, network)
            return None

        def seen(current: Network) -> Network:
            if current.meta.deleting_at is not None:
                return current
            return current.with_status(
                phase=Phase.READY,
                observed_generation=current.meta.generation,
                ports=len(ports),
            )

        await self._networks.mutate(key, seen)
        self._counted_at[key] = self._runtime.clock.monotonic()
        return None

    def _counted_lately(self, network: Network) -> float:
        """For how long the count of its ports, which is all that can have changed of a settled
        network, waits: many ports at once are one write."""
        if network.meta.deleting_at is not None or not network.settled():
            return 0.0
        counted_at = self._counted_at.get(self._networks.key_of(network))
        if counted_at is None:
            return 0.0
        return counted_at + COUNT_EVERY_S - self._runtime.clock.monotonic()
