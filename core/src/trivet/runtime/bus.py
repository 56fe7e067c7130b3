"""What the bus can do: request and reply, core messages, and the durable stream of events.

A `Bus` carries bytes and headers; who may send what is the server's business (accounts and
permissions). The real one is `nats_bus.NatsBus`, the twin `trivet.testing.memory_bus.MemoryBus`.

The law: a request either gets the handler's reply or raises `Retry(TIMEOUT)` after its
deadline, `Retry(UNAVAILABLE)` at once where nobody listens or the connection is down, or
`Fatal(DENIED)` where the server denied the publish. A request that was on its way when the
connection broke is `Retry(TIMEOUT)`: it may have been handled. Handlers run concurrently, at
most `bound` at once; one that is over the bound waits, and is dropped unanswered when its
deadline has gone by. A handler that raises answers nothing: turning errors into replies is the
caller's layer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

MAX_PAYLOAD_BYTES = 8_000_000
"""What one message may carry, with its headers (the server's own limit is a little above)."""

DEDUPE_WINDOW_S = 600.0
"""How long the event stream remembers message ids. What may be older is looked for instead."""


@dataclass(frozen=True)
class Message:
    """What arrived. `headers` keys are as sent. `remaining_s`: of the sender's deadline."""

    subject: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    remaining_s: float | None = None


@dataclass(frozen=True)
class StreamMessage:
    """A message of the event stream; `seq` grows, and resumes a subscription."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]


Handler = Callable[[Message], Awaitable[bytes]]
Callback = Callable[[Message], Awaitable[None]]


class Subscription(Protocol):
    """Something that can be ended; ending twice is fine."""

    async def stop(self) -> None:
        """End it; handlers at work are let finish."""
        ...


class Bus(Protocol):
    """The bus, as every service sees it."""

    @property
    def connected(self) -> bool:
        """Whether the server is there now."""
        ...

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send a request to one listener and wait for its reply."""
        ...

    async def serve(
        self, subject: str, handler: Handler, *, queue: str | None, bound: int
    ) -> Subscription:
        """Answer requests on `subject` (NATS wildcards allowed), sharing them among all of
        `queue`; lasts over reconnects. Returns once the server knows of it."""
        ...

    async def publish(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a core message: to whoever listens now, and lost else."""
        ...

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """Hear core messages on `subject`; lasts over reconnects."""
        ...

    async def append_event(self, subject: str, data: bytes, *, message_id: str) -> int:
        """Append to the event stream, once for each `message_id`; returns when it is on
        disk, with the sequence number (that of the first time, for a repeat)."""
        ...

    def events(self, subject: str, *, since_seq: int | None) -> AsyncGenerator[StreamMessage, None]:
        """Events on `subject` (wildcards allowed), in order, each once, for ever: from
        `since_seq` on, or (None) from the moment the first is asked for; who must miss none
        asks `last_event_seq` first. Lasts over reconnects without gap."""
        ...

    async def last_event_seq(self) -> int:
        """The sequence number of the newest event (0: none yet)."""
        ...

    async def find_event(self, subject: str, message_id: str, *, since: datetime) -> int | None:
        """The sequence number of the event of that id on `subject` (no wildcards), looked for
        among those appended at `since` (UTC) or later; None: it is not in the stream."""
        ...

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` each time the connection is there again."""
        ...

    async def close(self) -> None:
        """Let handlers finish, then disconnect."""
        ...
