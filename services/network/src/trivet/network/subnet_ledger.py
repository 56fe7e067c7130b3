"""A project's subnets in one record, so that overlaps are refused without a race.

Overlap is no equality: a claim on a key can't express it. Whoever makes a network adds its
subnets to its project's ledger by compare-and-swap, having seen all that are in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import aclosing

from trivet.contracts.errors import Refused
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.codes import SUBNET_OVERLAP
from trivet.network.domain.addresses import overlapping
from trivet.runtime.cas import change_value
from trivet.runtime.store import Store, Synced

PREFIX = "subnets."


class Ledger(Model):
    """The subnets of a project's networks, by the network's id."""

    networks: dict[ResourceId, tuple[str, ...]] = {}


class SubnetLedger:
    """The ledgers of all projects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, project: str, network: ResourceId, subnets: tuple[str, ...]) -> None:
        """Enter a network's subnets. Raises `Refused(SUBNET_OVERLAP)`."""

        def enter(ledger: Ledger) -> Ledger:
            others = (s for n, held in ledger.networks.items() if n != network for s in held)
            clash = overlapping(subnets, others)
            if clash is not None:
                raise Refused(
                    SUBNET_OVERLAP,
                    f"{clash[0]} overlaps {clash[1]} of another network of the project",
                    hint="choose a subnet that overlaps none of the project's",
                )
            return Ledger(networks={**ledger.networks, network: subnets})

        await self._change(project, enter)

    async def remove(self, project: str, networks: set[ResourceId]) -> None:
        """Strike networks out; absent ones are fine."""
        await self._change(
            project,
            lambda ledger: Ledger(
                networks={n: s for n, s in ledger.networks.items() if n not in networks}
            ),
        )

    async def entries(self) -> Iterable[tuple[str, ResourceId]]:
        """All networks that are entered, with their projects."""
        found: list[tuple[str, ResourceId]] = []
        async with aclosing(self._store.watch(PREFIX)) as steps:
            async for step in steps:
                if isinstance(step, Synced):
                    break
                if step.value is not None:
                    project = step.key.removeprefix(PREFIX)
                    ledger = Ledger.model_validate_json(step.value)
                    found.extend((project, network) for network in ledger.networks)
        return found

    async def _change(self, project: str, change: Callable[[Ledger], Ledger]) -> None:
        key = PREFIX + project
        await change_value(self._store, key, Ledger, lambda found: change(found or Ledger()))
