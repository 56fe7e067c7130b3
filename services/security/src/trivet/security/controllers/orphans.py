"""Removes the tokens of users that are gone. They prove nothing any more; this only tidies."""

from __future__ import annotations

from trivet.contracts.security.identity import Token
from trivet.runtime.service import Runtime
from trivet.security.parts import People


class OrphanTokens:
    """Looks from time to time for tokens without their user."""

    def __init__(self, runtime: Runtime, people: People) -> None:
        self._runtime = runtime
        self._people = people

    async def run(self) -> None:
        """Look until cancelled; first after a while, when the first start is done."""
        while True:
            await self._runtime.clock.sleep(self._runtime.settings.security.look_s)
            # While there is no user at all, the first start is still on its way.
            if not self._people.users.list():
                continue
            for token in self._people.tokens.list():
                if await self._orphaned(token):
                    await self._people.tokens.remove(token)

    async def _orphaned(self, token: Token) -> bool:
        users = self._people.users
        user = await users.fresh(users.kind.key(None, token.spec.user))
        owner = token.meta.owner
        return user is None or owner is None or owner.id != user.meta.id
