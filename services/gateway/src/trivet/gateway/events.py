"""Events for subscribers: from the bus's stream to server-sent events and WebSockets.

Each subscriber has its own place in the stream, so that it resumes without gap by the id of the
last event it had, at any gateway. A slow one fills its bounded buffer and is then read for no
further; the stream keeps the rest. Who subscribes is verified again every few seconds: a token
that is revoked ends the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from pydantic import ValidationError

from trivet.contracts.access import Caller
from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.event import CloudEvent
from trivet.gateway.filters import visible
from trivet.gateway.identity import Identities
from trivet.gateway.limits import Limits
from trivet.gateway.streams import OpenStreams
from trivet.runtime.bus import Bus, StreamMessage
from trivet.runtime.clock import Clock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """An event for a subscriber; `seq` resumes after it. `event` None: nothing new, still here."""

    seq: int
    event: CloudEvent | None


@dataclass(frozen=True)
class Subscriber:
    """Who asked for which events, as it asked."""

    authorization: str | None
    address: str | None
    subject: str
    since: int | None
    project: str | None


class EventFeeds:
    """The open streams of this gateway."""

    def __init__(
        self,
        bus: Bus,
        identities: Identities,
        streams: OpenStreams,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._bus = bus
        self._identities = identities
        self._streams = streams
        self._clock = clock
        self._limits = limits
        self._closing = asyncio.Event()

    async def admit(self, subscriber: Subscriber) -> Caller:
        """Who subscribes; refuses strangers, and everybody while the bound is reached."""
        caller = await self._identities.caller(subscriber.authorization, subscriber.address)
        self._streams.check(caller.user)
        return caller

    async def first(self, subscriber: Subscriber) -> int:
        """Where the stream begins. Fixed before the reply begins, so that nothing that happens
        after the subscriber has its reply is missed."""
        if subscriber.since is not None:
            return subscriber.since
        return await self._bus.last_event_seq() + 1

    def close(self) -> None:
        """End all streams; their subscribers resume elsewhere."""
        self._closing.set()

    async def stream(self, subscriber: Subscriber, first: int) -> AsyncIterator[Told]:
        """What the subscriber may see, in order, from `first` on, until the gateway closes or
        the token proves nothing any more."""
        caller = await self._caller(subscriber)
        if caller is None:
            return
        try:
            place = self._streams.take(caller.user)
        except Retry as error:
            # Others came in between; the subscriber comes again, and is told.
            log.info("a stream of events ends: %s", error)
            return
        with place:
            async with aclosing(self._follow(subscriber, caller, first)) as told:
                async for one in told:
                    yield one

    async def _follow(
        self, subscriber: Subscriber, found: Caller, first: int
    ) -> AsyncGenerator[Told, None]:
        buffer: asyncio.Queue[StreamMessage] = asyncio.Queue(self._limits.event_buffer)
        pump = asyncio.create_task(self._pump(subscriber.subject, first, buffer))
        seq, verified = first - 1, self._clock.monotonic()
        caller: Caller | None = found
        try:
            while caller is not None and not pump.done():
                message = await self._next(buffer)
                if self._closing.is_set():
                    return
                if self._clock.monotonic() - verified >= self._limits.identity_cache_s:
                    caller, verified = await self._caller(subscriber), self._clock.monotonic()
                    if caller is None:
                        return
                if message is None:
                    yield Told(seq, None)
                    continue
                seq = message.seq
                event = _parse(message)
                if event and visible(event, caller, subscriber.project):
                    yield Told(seq, event)
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump

    async def _pump(self, subject: str, first: int, buffer: asyncio.Queue[StreamMessage]) -> None:
        try:
            async for message in self._bus.events(subject, since_seq=first):
                await buffer.put(message)
        except TrivetError as error:
            log.warning("a stream of events ended: %s", error)

    async def _next(self, buffer: asyncio.Queue[StreamMessage]) -> StreamMessage | None:
        """The next message, or None when nothing came for a while or the gateway closes."""
        if not buffer.empty():
            return buffer.get_nowait()
        message = asyncio.ensure_future(buffer.get())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait(
                (message, closing),
                timeout=self._limits.event_keepalive_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return message.result() if message.done() else None
        finally:
            message.cancel()
            closing.cancel()

    async def _caller(self, subscriber: Subscriber) -> Caller | None:
        """The caller as it is now; None where the token proves nothing any more."""
        try:
            return await self._identities.caller(subscriber.authorization, subscriber.address)
        except TrivetError as error:
            log.info("a stream of events ends: %s", error)
            return None


def _parse(message: StreamMessage) -> CloudEvent | None:
    try:
        return CloudEvent.model_validate_json(message.data)
    except ValidationError as error:
        log.warning("event %d can't be read: %s", message.seq, error)
        return None


def as_sse(told: Told) -> bytes:
    """The event as server-sent event. It has no `event:` line, so that a browser's `onmessage`
    gets all of them; the type is in the data. A comment says that the stream is still there."""
    if told.event is None:
        return b": keep-alive\n\n"
    return b"id: %d\ndata: %s\n\n" % (told.seq, told.event.model_dump_json().encode())
