"""What a token looks like, what is kept of it, and when it proves something.

The text is `trv_<16 hex>_<secret>`: the middle part finds the record, the secret has 256 bits
of randomness, so that its plain SHA-256 can be kept: there is nothing to guess. The prefix lets
scanners find tokens that were published by mistake.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trivet.contracts.model import ResourceId
from trivet.contracts.security.identity import Token, User

SECRET_BYTES = 32
_TEXT = re.compile(r"^trv_(?P<part>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43,128})$")


@dataclass(frozen=True)
class TokenText:
    """A token as its holder has it."""

    part: str
    secret: str = field(repr=False)

    @property
    def id(self) -> ResourceId:
        """The id of the token's record."""
        return ResourceId(f"token-{self.part}")

    @property
    def text(self) -> str:
        """What goes into the Authorization header."""
        return f"trv_{self.part}_{self.secret}"

    @property
    def hash(self) -> str:
        """What is kept of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def parse(text: str) -> TokenText | None:
    """The parts of a token's text; None if it can't be one."""
    match = _TEXT.match(text)
    return TokenText(match["part"], match["secret"]) if match else None


def of_record(id_: ResourceId, secret: str) -> TokenText:
    """The text of a new token with that record and that secret."""
    return TokenText(id_.removeprefix("token-"), secret)


def rotated(token: Token, text: TokenText, now: datetime, keep: timedelta) -> Token:
    """The token with `text` as its secret; the one before is good for `keep` still."""
    return token.with_status(
        hash=text.hash,
        previous_hash=token.status.hash if keep else "",
        previous_until=now + keep if keep else None,
        rotated_at=now,
    )


def _was_right(text: TokenText, token: Token | None, now: datetime) -> bool:
    """Whether it is the secret before the last rotation, and that is good still."""
    if token is None or token.status.previous_until is None:
        return False
    same = hmac.compare_digest(token.status.previous_hash, text.hash)
    return same and now < token.status.previous_until


def proves(text: TokenText, token: Token | None, user: User | None, now: datetime) -> bool:
    """Whether `text` proves now to be `user`, given the records it leads to.

    The record names its user's id, so that a namesake made later inherits no tokens.
    """
    kept = token.status.hash if token is not None else "0" * 64
    right = hmac.compare_digest(kept, text.hash) or _was_right(text, token, now)
    return right and counts(token, user, now)


def counts(token: Token | None, user: User | None, now: datetime) -> bool:
    """Whether a token that was shown before is still `user`'s, and good."""
    if token is None or user is None:
        return False
    if token.meta.deleting_at is not None or user.meta.deleting_at is not None:
        return False
    if token.meta.owner is None or token.meta.owner.id != user.meta.id:
        return False
    expired = token.spec.expires_at is not None and token.spec.expires_at <= now
    return not expired and not user.spec.disabled
