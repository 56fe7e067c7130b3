"""A node's own health, kept as conditions of its record: what its checks say, and its hypervisor.

Apart from the registration, which needs the hypervisor's answer: that it does not come is just
what is to be told.
"""

from __future__ import annotations

from collections.abc import Sequence

from trivet.compute.domain.node_health import with_checks
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.node_check import CheckResult, NodeCheck
from trivet.contracts.errors import TrivetError
from trivet.runtime.collection import Collection
from trivet.runtime.node_checks import look
from trivet.runtime.service import Service

LONGEST_LOOK_S = 15.0


class NodeChecks:
    """Looks at this node from time to time."""

    def __init__(
        self,
        service: Service,
        nodes: Collection[Node],
        hypervisor: Hypervisor,
        checks: Sequence[NodeCheck],
    ) -> None:
        self._runtime = service.runtime
        self._nodes = nodes
        self._hypervisor = hypervisor
        self._checks = checks
        self._key = nodes.kind.key(None, service.runtime.node)

    async def run(self) -> None:
        """Work until cancelled."""
        every_s = min(self._runtime.settings.compute.look_s, LONGEST_LOOK_S)
        while True:
            await self.tell()
            await self._runtime.clock.sleep(every_s)

    async def tell(self) -> None:
        """Put on record what is so now; a node that is not registered yet has no record."""
        results = (await self._hypervisor_answers(), *await look(self._checks))
        now = self._runtime.clock.now()
        await self._nodes.mutate(self._key, lambda node: with_checks(node, results, now))

    async def _hypervisor_answers(self) -> CheckResult:
        try:
            await self._hypervisor.inventory()
        except TrivetError as error:
            message = f"the hypervisor does not answer: {error.detail}"
            return CheckResult(type="Hypervisor", ok=False, reason="Away", message=message)
        return CheckResult(type="Hypervisor", ok=True, reason="Answers")
