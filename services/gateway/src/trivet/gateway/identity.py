"""Who calls: from the Authorization header to a caller, remembered for a few seconds.

The security service says who a token belongs to. Its answer is kept a short while, under a hash
of the token, and forgotten at once when a token, user or role changes; an answer that was under
way while that happened is not kept. What proves nothing is never remembered, so guessing tokens
can't push known callers out. Who comes too often is told to come later: by the token, or by the
address where there is no valid one.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from trivet.contracts.access import Caller
from trivet.contracts.errors import TOO_MANY, UNAUTHENTICATED, Refused, Retry
from trivet.contracts.event import SUBJECT_PREFIX
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.security.endpoints.token_verify import VerifyRequest
from trivet.gateway.limits import Limits
from trivet.gateway.rates import Rates
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock

FORGET_ON = tuple(f"{SUBJECT_PREFIX}.security.{noun}." for noun in ("token", "user", "role"))
_HINT = "Authorization: Bearer <token>; `trivet token create` makes one"


class Identities:
    """Callers by bearer token."""

    def __init__(self, client: Client, clock: Clock, limits: Limits) -> None:
        self._client = client
        self._clock = clock
        self._limits = limits
        self._rates = Rates(limits.rate_per_s, limits.rate_burst)
        self._denials = Rates(limits.denials_per_s, limits.denials_burst)
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._epoch = 0

    async def caller(self, authorization: str | None, address: str | None) -> Caller:
        """Who the header proves; `Refused(UNAUTHENTICATED)` where it proves nobody, and
        `Retry(TOO_MANY)` for who comes too often."""
        now = self._clock.monotonic()
        try:
            bearer = self._bearer(authorization)
            digest = hashlib.sha256(bearer.encode()).digest()
            found = self._known.get(digest)
            if found is None or found[0] <= now:
                self._may_try(address, now)
                caller = await self._verify(bearer, digest)
            else:
                self._known.move_to_end(digest)
                caller = found[1]
        except Refused:
            self._may_try(address, now)
            self._denials.take(address, now)
            raise
        if wait_s := self._rates.take(digest, now):
            hint = f"at most {self._limits.rate_per_s:g} a second: gateway.rate_per_s"
            raise Retry(TOO_MANY, "too many requests", hint=hint, retry_after_s=wait_s)
        return caller.model_copy(update={"address": address})

    def _may_try(self, address: str | None, now: float) -> None:
        """Refuse an address that showed too many tokens that prove nothing."""
        if wait_s := self._denials.wait_s(address, now):
            detail = "too many requests without a valid token"
            raise Retry(TOO_MANY, detail, hint=_HINT, retry_after_s=wait_s)

    def forget(self) -> None:
        """Ask anew for every token."""
        self._epoch += 1
        self._known.clear()

    def on_event(self, subject: str) -> None:
        """Forget, if an event on that bus subject can change who may do what."""
        if subject.startswith(FORGET_ON):
            self.forget()

    async def _verify(self, bearer: str, digest: bytes) -> Caller:
        epoch = self._epoch
        response = await self._client.call(VERIFY, VerifyRequest(bearer=bearer))
        if response.caller is None:
            self._known.pop(digest, None)
            raise Refused(UNAUTHENTICATED, "the token proves nothing", hint=_HINT)
        if epoch == self._epoch:
            until = self._clock.monotonic() + self._limits.identity_cache_s
            self._known[digest] = (until, response.caller)
            while len(self._known) > self._limits.identity_cache_size:
                self._known.popitem(last=False)
        return response.caller

    def _bearer(self, authorization: str | None) -> str:
        scheme, _, bearer = (authorization or "").partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise Refused(UNAUTHENTICATED, "no bearer token was given", hint=_HINT)
        if len(bearer) > self._limits.bearer_bytes or not bearer.isascii():
            raise Refused(UNAUTHENTICATED, "what was given is no token", hint=_HINT)
        return bearer
