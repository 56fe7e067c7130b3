"""How many streams are open: of events, consoles, whatever lasts as long as its client does.

They are bounded in all and for each user, so that nobody can take every place.
"""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, ExitStack

from trivet.contracts.errors import TOO_MANY, Retry
from trivet.gateway.limits import Limits

AGAIN_S = 10.0


class OpenStreams:
    """The open streams of this gateway, by user."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_user: Counter[str] = Counter()

    def check(self, user: str) -> None:
        """Raise `Retry(TOO_MANY)` where `user` may not open one more."""
        if self._by_user.total() >= self._limits.streams:
            raise Retry(TOO_MANY, "too many streams are open", retry_after_s=AGAIN_S)
        if self._by_user[user] >= self._limits.streams_per_user:
            detail = f"{user} has {self._by_user[user]} streams open"
            hint = "close one, or raise gateway.max_streams_per_user"
            raise Retry(TOO_MANY, detail, hint=hint, retry_after_s=AGAIN_S)

    def take(self, user: str) -> AbstractContextManager[object]:
        """A place for one stream of `user`, until the end of the block that the result begins.
        Raises as `check`."""
        self.check(user)
        self._by_user[user] += 1
        place = ExitStack()
        place.callback(self._give_back, user)
        return place

    def _give_back(self, user: str) -> None:
        self._by_user[user] -= 1
        if not self._by_user[user]:
            del self._by_user[user]
