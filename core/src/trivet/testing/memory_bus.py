"""The bus in memory: the twin of the real one, as strict, for many services in one process.

A `MemoryBroker` is the server: subjects, the event stream, the buckets. A `MemoryBus` is one
service's connection to it, and can be cut (`drop`) and mended (`restore`) as a network does.
`Faults` on the broker lose requests or replies on the way. All waits are the event loop's, so
a loop with its own time runs this in its own time. The contract suite runs on this and on the
real bus alike.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from trivet.contracts.errors import MALFORMED, TIMEOUT, UNAVAILABLE, Refused, Retry
from trivet.runtime.bus import (
    DEDUPE_WINDOW_S,
    MAX_PAYLOAD_BYTES,
    Callback,
    Handler,
    Message,
    StreamMessage,
)
from trivet.runtime.handlers import Handlers, Reply
from trivet.runtime.subjects import matches
from trivet.testing.memory_bucket import MemoryBucket


def _never(subject: str) -> bool:
    return False


@dataclass
class Faults:
    """What goes wrong on the way: predicates over subjects, asked for each message."""

    lose_request: Callable[[str], bool] = _never
    lose_reply: Callable[[str], bool] = _never
    lose_append_ack: Callable[[str], bool] = _never


@dataclass(eq=False)
class _Listener:
    """A subscription. `handlers` None: it hears, and answers nothing."""

    bus: MemoryBus
    pattern: str
    queue: str | None
    handlers: Handlers


@dataclass(eq=False)
class _Subscription:
    listener: _Listener

    async def stop(self) -> None:
        """End it; handlers at work are let finish."""
        broker = self.listener.bus.broker
        if self.listener in broker.listeners:
            broker.listeners.remove(self.listener)
        await self.listener.handlers.drained()


@dataclass(eq=False)
class MemoryBroker:
    """The server that several `MemoryBus` share."""

    faults: Faults = field(default_factory=Faults)
    dedupe_window_s: float = DEDUPE_WINDOW_S
    listeners: list[_Listener] = field(default_factory=list)
    events: list[tuple[StreamMessage, str, datetime]] = field(default_factory=list)
    buckets: dict[str, MemoryBucket] = field(default_factory=dict)
    appended: asyncio.Event = field(default_factory=asyncio.Event)
    _ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    def bucket(self, name: str) -> MemoryBucket:
        """The bucket of that name, made at first use."""
        return self.buckets.setdefault(name, MemoryBucket(name))

    def route(self, subject: str) -> list[_Listener]:
        """Who gets a message: every listener without a queue, and one of each queue in turn."""
        chosen: list[_Listener] = []
        queues: dict[str, list[_Listener]] = {}
        for listener in self.listeners:
            if listener.bus.connected and matches(listener.pattern, subject):
                if listener.queue is None:
                    chosen.append(listener)
                else:
                    queues.setdefault(listener.queue, []).append(listener)
        chosen.extend(group[next(self._turn) % len(group)] for group in queues.values())
        return chosen

    def append(self, subject: str, data: bytes, message_id: str) -> int:
        """Append an event unless its id is within the window; its sequence number."""
        now = asyncio.get_running_loop().time()
        known = self._ids.get(message_id)
        if known is not None and now - known[1] < self.dedupe_window_s:
            return known[0]
        seq = len(self.events) + 1
        message = StreamMessage(seq, subject, data, {"Nats-Msg-Id": message_id})
        self.events.append((message, message_id, datetime.now(UTC)))
        self._ids[message_id] = (seq, now)
        self.wake()
        return seq

    def wake(self) -> None:
        """Let every reader of the stream look again."""
        self.appended.set()
        self.appended = asyncio.Event()


class MemoryBus:
    """One service's connection to a `MemoryBroker`; see `trivet.runtime.bus` for the law."""

    def __init__(self, broker: MemoryBroker, service: str = "test") -> None:
        self.broker = broker
        self.service = service
        self._connected = True
        self._closed = False
        self._waiting: set[asyncio.Future[bytes]] = set()
        self._mine: list[_Subscription] = []
        self._on_reconnect: list[Callable[[], Awaitable[None]]] = []

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable now."""
        return self._connected and not self._closed

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The reply of one listener."""
        self.check(data)
        loop = asyncio.get_running_loop()
        listeners = self.broker.route(subject)
        if not listeners:
            raise Retry(UNAVAILABLE, f"nobody listens on {subject}")
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.add(answer)
        deadline = loop.time() + timeout_s
        try:
            if not self.broker.faults.lose_request(subject):
                message = Message(subject, data, dict(headers or {}))
                for listener in listeners:
                    reply = self._reply_to(answer, subject, listener.bus)
                    listener.handlers.accept(message, deadline, reply)
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            raise Retry(TIMEOUT, f"no answer on {subject} within {timeout_s:g} s") from None
        finally:
            self._waiting.discard(answer)

    def _reply_to(self, answer: asyncio.Future[bytes], subject: str, sender: MemoryBus) -> Reply:
        async def reply(data: bytes) -> None:
            reachable = self.connected and sender.connected
            if reachable and not self.broker.faults.lose_reply(subject) and not answer.done():
                answer.set_result(data)

        return reply

    async def serve(
        self, subject: str, handler: Handler, *, queue: str | None, bound: int
    ) -> _Subscription:
        """Answer requests on `subject`."""
        return self._listen(subject, queue, Handlers(handler, bound))

    async def publish(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Tell whoever listens now."""
        self.check(data)
        if self.broker.faults.lose_request(subject):
            return
        for listener in self.broker.route(subject):
            listener.handlers.accept(Message(subject, data, dict(headers or {})), None, _nothing)

    async def subscribe(self, subject: str, callback: Callback) -> _Subscription:
        """Hear core messages, one after the other."""

        async def hear(message: Message) -> bytes:
            await callback(message)
            return b""

        return self._listen(subject, None, Handlers(hear, 1))

    def _listen(self, pattern: str, queue: str | None, handlers: Handlers) -> _Subscription:
        subscription = _Subscription(_Listener(self, pattern, queue, handlers))
        self.broker.listeners.append(subscription.listener)
        self._mine.append(subscription)
        return subscription

    async def append_event(self, subject: str, data: bytes, *, message_id: str) -> int:
        """Append to the event stream, once for each id within the window."""
        self.check(data)
        if self.broker.faults.lose_request(subject):
            raise Retry(TIMEOUT, f"no acknowledgement for the event {message_id}")
        seq = self.broker.append(subject, data, message_id)
        await asyncio.sleep(0)
        if self.broker.faults.lose_append_ack(subject) or not self.connected:
            raise Retry(TIMEOUT, f"no acknowledgement for the event {message_id}")
        return seq

    async def events(
        self, subject: str, *, since_seq: int | None
    ) -> AsyncGenerator[StreamMessage, None]:
        """Events in order, waiting for more at the end."""
        position = len(self.broker.events) if since_seq is None else max(since_seq - 1, 0)
        while not self._closed:
            appended = self.broker.appended
            while self.connected and position < len(self.broker.events):
                message = self.broker.events[position][0]
                position += 1
                if matches(subject, message.subject):
                    yield message
            await appended.wait()

    async def last_event_seq(self) -> int:
        """The newest event's sequence number."""
        self.check(b"")
        return len(self.broker.events)

    async def find_event(self, subject: str, message_id: str, *, since: datetime) -> int | None:
        """The sequence number of the event of that id, appended at `since` or later."""
        self.check(b"")
        for message, known_id, at in self.broker.events:
            if known_id == message_id and message.subject == subject and at >= since:
                return message.seq
        return None

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` after each `restore`."""
        self._on_reconnect.append(callback)

    async def close(self) -> None:
        """Let handlers finish, then disconnect."""
        for subscription in self._mine:
            await subscription.stop()
        await self.drop()
        self._closed = True
        self.broker.wake()

    async def drop(self) -> None:
        """Cut the connection: requests on their way fail, nothing is heard until `restore`."""
        self._connected = False
        for answer in list(self._waiting):
            if not answer.done():
                answer.set_exception(Retry(TIMEOUT, "the connection broke; it may have happened"))
        for bucket in self.broker.buckets.values():
            bucket.cut(self)

    async def restore(self) -> None:
        """Mend the connection: watches and event readers go on, callbacks are called."""
        self._connected = True
        for bucket in self.broker.buckets.values():
            bucket.mend(self)
        self.broker.wake()
        for callback in self._on_reconnect:
            await callback()

    def check(self, data: bytes) -> None:
        """Raise unless connected, with a payload that a message can carry."""
        if not self.connected:
            raise Retry(UNAVAILABLE, "the bus is not connected")
        if len(data) > MAX_PAYLOAD_BYTES:
            raise Refused(MALFORMED, f"{len(data)} bytes; at most {MAX_PAYLOAD_BYTES}")

    def __repr__(self) -> str:
        return f"<MemoryBus {self.service} {'up' if self.connected else 'down'}>"


async def _nothing(data: bytes) -> None:
    """A core message has no reply."""
