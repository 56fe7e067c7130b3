"""What resources claim of their projects' quotas, before they are stored and after.

The security service keeps the ledgers; whoever owns a kind claims there by compare-and-swap what a
resource will take, and only then stores it. Until it is stored a claim only grows, so that of two
who change a resource at once, who fails takes nothing from the other. What is not given back here
(a crash, no answer) the security service finds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Generic

from trivet.contracts.errors import TrivetError
from trivet.contracts.resource import Amounts, Kind, ResourceT
from trivet.contracts.security.endpoints.quota_claim import ENDPOINT as CLAIM
from trivet.contracts.security.endpoints.quota_claim import ClaimRequest
from trivet.runtime.call import Client


class QuotaClaims(Generic[ResourceT]):
    """The claims of one kind's resources; nothing is claimed for a kind that takes nothing."""

    def __init__(self, client: Client, kind: Kind[ResourceT]) -> None:
        self._client = client
        self._kind = kind

    async def claim(self, before: ResourceT | None, after: ResourceT) -> None:
        """Claim what it takes, where that is more than before. Raises `Refused(QUOTA)`."""
        if any(more > 0 for more in self._more(before, after)):
            await self._tell(after, self._takes(after))

    async def settle(self, before: ResourceT, after: ResourceT) -> None:
        """It is stored: what it takes less than before is free for others."""
        if any(more < 0 for more in self._more(before, after)):
            with contextlib.suppress(TrivetError):
                await self._tell(after, self._takes(after), stored=True)

    async def give_back(self, never_made: ResourceT) -> None:
        """Its claim came to nothing."""
        if self._takes(never_made):
            with contextlib.suppress(TrivetError):
                await self._tell(never_made, {})

    def _takes(self, resource: ResourceT) -> Amounts:
        takes = self._kind.takes
        return takes(resource) if takes is not None and resource.meta.project is not None else {}

    def _more(self, before: ResourceT | None, after: ResourceT) -> Iterator[int]:
        """How much more of each limit it takes than before."""
        had = self._takes(before) if before is not None else {}
        for name, amount in self._takes(after).items():
            yield amount - had.get(name, 0)

    async def _tell(self, resource: ResourceT, amounts: Amounts, *, stored: bool = False) -> None:
        assert resource.meta.project is not None
        request = ClaimRequest(
            project=resource.meta.project,
            resource=resource.meta.id,
            amounts=dict(amounts),
            generation=resource.meta.generation,
            stored=stored,
        )
        await self._client.call(CLAIM, request)
