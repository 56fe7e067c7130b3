"""From a bearer token to a caller: Trivet's own tokens first, then what plugins know.

Whoever proves a user, its rights are those of the user's record here, with those that the
provider's configuration gives; a user that is disabled or being deleted has none. When a token
was last used is kept roughly and written from time to time, so that looking at a token costs no
write.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial

from trivet.contracts.access import Caller, allowed, needs
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.security.identity import TOKEN, Token, User
from trivet.contracts.security.identity_provider import (
    Identity,
    IdentityProvider,
    LoginFacts,
    OffersLogin,
)
from trivet.contracts.stream import OnBehalf
from trivet.runtime.service import Runtime
from trivet.security.domain.access import grants_of, narrowed
from trivet.security.domain.tokens import counts, parse, proves
from trivet.security.parts import People

log = logging.getLogger(__name__)

USE_GRAIN = timedelta(minutes=5)


class Identities:
    """Tells who a bearer token belongs to."""

    def __init__(
        self, runtime: Runtime, people: People, providers: tuple[IdentityProvider, ...]
    ) -> None:
        self._runtime = runtime
        self._people = people
        self._providers = providers
        self._used: dict[str, datetime] = {}

    async def caller(self, bearer: str) -> Caller | None:
        """The caller that the token proves now, or None.

        Raises what a provider raised that could not tell, where no other could either.
        """
        own = self._own(bearer)
        if own is not None:
            return own
        failure: TrivetError | None = None
        for provider in self._providers:
            try:
                identity = await provider.identify(bearer)
            except TrivetError as error:
                log.warning("identity provider %s: %s", provider.name, error)
                failure = error
                continue
            if identity is not None and (caller := self._proven(identity)) is not None:
                return caller
        if failure is not None:
            raise failure
        return None

    def holds(self, asked: OnBehalf) -> bool:
        """Whether what was begun with a token may go on. Of a provider's tokens nothing is known
        here but their user's record: one that is disabled keeps them out."""
        user = self._people.users.get(asked.user)
        if not asked.token_id.startswith(f"{TOKEN.name}-"):
            return user is None or _may_enter(user)
        token = self._people.tokens.by_id(ResourceId(asked.token_id))
        if not counts(token, user, self._runtime.clock.now()) or token is None or user is None:
            return False
        held = grants_of(user.spec.roles, self._people.roles_now())
        grants = narrowed(held, token.spec.permissions, token.spec.projects)
        return allowed(
            Caller(user=asked.user, grants=grants), needs(asked.permission), asked.project
        )

    def _proven(self, identity: Identity) -> Caller | None:
        """Who a provider proved: with the rights of its record here, if there is one, and those
        that the provider gives it. A record that is disabled keeps it out."""
        user = self._people.users.get(identity.user)
        if user is not None and not _may_enter(user):
            return None
        if user is None and not identity.roles:
            return None
        held = (*(user.spec.roles if user else ()), *identity.roles)
        grants = grants_of(held, self._people.roles_now())
        return Caller(user=identity.user, token_id=identity.token_id, grants=grants)

    def logins(self) -> tuple[LoginFacts, ...]:
        """Where people can log in."""
        offering = (p.login for p in self._providers if isinstance(p, OffersLogin))
        return tuple(facts for facts in offering if facts is not None)

    def _own(self, bearer: str) -> Caller | None:
        text = parse(bearer)
        if text is None:
            return None
        token = self._people.tokens.by_id(text.id)
        user = self._people.users.get(token.spec.user) if token else None
        now = self._runtime.clock.now()
        if not proves(text, token, user, now) or token is None or user is None:
            return None
        self._used[self._people.tokens.key_of(token)] = now
        held = grants_of(user.spec.roles, self._people.roles_now())
        grants = narrowed(held, token.spec.permissions, token.spec.projects)
        return Caller(user=user.meta.name, token_id=token.meta.id, grants=grants)

    async def run(self) -> None:
        """Write down now and then which tokens were used."""
        while True:
            await self._runtime.clock.sleep(self._runtime.settings.security.look_s)
            used, self._used = self._used, {}
            for key, when in used.items():
                await self._people.tokens.mutate(key, partial(_used_at, when=when))


def _may_enter(user: User) -> bool:
    return not user.spec.disabled and user.meta.deleting_at is None


def _used_at(token: Token, when: datetime) -> Token:
    known = token.status.last_used_at
    if known is not None and when - known < USE_GRAIN:
        return token
    return token.with_status(last_used_at=when)
