"""Time, identity and chance, as things that are handed in.

Domain code gets `now` as an argument and the shell asks a `Clock`; a simulation hands in its
own. Wall time (UTC) is for people and records, monotonic time for measuring waits.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

from trivet.contracts.model import ResourceId


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Wall time, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from some point on, never backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Wall time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since boot or so."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait in the event loop."""
        await asyncio.sleep(seconds)


def new_id(kind: str, nonce: str | None = None) -> ResourceId:
    """A resource id, `<kind>-<16 hex>`: a fresh one, or always the same for a `nonce`."""
    return ResourceId(f"{kind}-{nonce or secrets.token_hex(8)}")
