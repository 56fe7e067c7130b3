"""When something of the security service wants attention. One entry a rule."""

from __future__ import annotations

from datetime import datetime, timedelta

from trivet.contracts.alarm import AlarmRule, Severity, alarm_kind
from trivet.contracts.security.identity import TOKEN, Token

ALARM = alarm_kind("security")

LONG_LIVED = timedelta(days=7)
SOON = timedelta(days=3)


def _expiring(token: Token, now: datetime) -> str | None:
    """Short-lived tokens come and go; one made for weeks is likely somebody's automation."""
    at = token.spec.expires_at
    if at is None or at - token.meta.created_at < LONG_LIVED or not now < at < now + SOON:
        return None
    return f"token {token.meta.name} of {token.spec.user} expires at {at:%Y-%m-%d %H:%M} UTC"


RULES: tuple[AlarmRule[Token], ...] = (
    AlarmRule(
        "token-expiring",
        TOKEN,
        Severity.INFO,
        "A long-lived token expires soon",
        "Whoever uses it needs a new one: `trivet token create`. Delete the old one when it is "
        "not used any more.",
        _expiring,
    ),
)
