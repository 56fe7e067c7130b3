"""Claims: who has an address, a MAC, a number. Made by compare-and-swap, before use.

A claim is a key that exists (`contracts.keys.claim_key`) and names its owner's id. The store
lets one `create` through, so of two who want the same thing one gets it, without a lock and
without looking first. Only the owner's id releases, so a late clean-up of a deleted resource
can't take away what has a new owner since.
"""

from __future__ import annotations

from contextlib import aclosing

from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.model import Model, ResourceId
from trivet.runtime.cas import change_value
from trivet.runtime.store import Store, Synced


class Claim(Model):
    """The value of a claim's key."""

    owner: ResourceId


class Claims:
    """The claims of one service's bucket."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def claim(self, key: str, owner: ResourceId) -> bool:
        """Whether `key` is `owner`'s: now, or since earlier. False: it is somebody else's.

        Raises `Retry` where the store can't tell; claiming again then gives the answer.
        """
        mine = Claim(owner=owner)
        try:
            # In most cases nobody has it, so there is nothing to read first.
            await self._store.create(key, mine.model_dump_json().encode())
        except Refused as error:
            if error.code is not CONFLICT:
                raise
        else:
            return True
        found = await change_value(self._store, key, Claim, lambda there: there or mine)
        return found == mine

    async def release(self, key: str, owner: ResourceId) -> None:
        """Let go of `key` if it is `owner`'s; else nothing is done."""
        mine = Claim(owner=owner)
        await change_value(self._store, key, Claim, lambda there: None if there == mine else there)

    async def owner(self, key: str) -> ResourceId | None:
        """Whose `key` is, as the store says now; None: nobody's."""
        entry = await self._store.get(key)
        return Claim.model_validate_json(entry.value).owner if entry else None

    async def owners(self, prefix: str) -> dict[str, ResourceId]:
        """All claims whose key begins with `prefix` ('claim.mac.'), as of about now."""
        found: dict[str, ResourceId] = {}
        async with aclosing(self._store.watch(prefix)) as steps:
            async for step in steps:
                if isinstance(step, Synced):
                    break
                if step.value is not None:
                    found[step.key] = Claim.model_validate_json(step.value).owner
        return found
