"""The bus on NATS: requests, core messages, and the event stream `EVENTS`.

See `trivet.runtime.bus` for the law. A request carries the time it has left in a header, since
the clocks of two machines are never compared; what it loses of that on its way is found by the
stamp it carries (`runtime.lateness`). Who sent a request that came too late is told so.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nats.errors
from nats.aio.msg import Msg

from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.event import STREAM
from trivet.runtime.bus import Callback, Handler, Message, StreamMessage
from trivet.runtime.handlers import Handlers
from trivet.runtime.lateness import Lateness, Stamp
from trivet.runtime.nats_link import (
    STATUS_HEADER,
    TOO_LATE,
    ApiError,
    CameLate,
    Hook,
    Link,
    translate,
)
from trivet.runtime.nats_tail import consumer, from_sequence, last_sequence, lives, newest

log = logging.getLogger(__name__)

TIMEOUT_HEADER = "Trivet-Timeout-Ms"
STAMP_HEADER = "Trivet-Sent"
MESSAGE_ID_HEADER = "Nats-Msg-Id"
_MILLISECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(eq=False)
class _Subscription:
    """A subscription and what still works for it."""

    end: Hook
    handlers: Handlers
    ended: bool = False

    async def stop(self) -> None:
        """End it; handlers at work are let finish."""
        if not self.ended:
            self.ended = True
            await self.end()
        await self.handlers.drained()


class NatsBus:
    """A service's connection. Made by `NatsBus.connect`."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._subscriptions: list[_Subscription] = []
        self._stamp = Stamp()
        self._lateness = Lateness()

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        *,
        service: str,
        name: str,
        seed_file: Path | None,
        ca_file: Path | None = None,
    ) -> NatsBus:
        """Connect as `service`. Raises as `Link.connect` does."""
        link = await Link.connect(
            urls, service=service, name=name, seed_file=seed_file, ca_file=ca_file
        )
        return cls(link)

    @property
    def connected(self) -> bool:
        """Whether the server is there now."""
        return self.link.connected

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The reply of one listener."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        try:
            return await self._ask(subject, data, timeout_s, headers or {})
        except CameLate as error:
            # It was not done. That the caller still waits shows that the stamp is not true.
            log.info("%s: %s", subject, error)
            self._stamp.renew()
            return await self._ask(subject, data, until - loop.time(), headers or {})

    async def _ask(
        self, subject: str, data: bytes, timeout_s: float, headers: Mapping[str, str]
    ) -> bytes:
        left = str(max(0, int(timeout_s * 1000)))
        sent = {**headers, TIMEOUT_HEADER: left, STAMP_HEADER: self._stamp.now()}
        return (await self.link.request(subject, data, timeout_s=timeout_s, headers=sent)).data

    async def serve(
        self, subject: str, handler: Handler, *, queue: str | None, bound: int
    ) -> _Subscription:
        """Answer requests on `subject`."""
        return await self._listen(subject, Handlers(handler, bound), queue or "")

    async def publish(
        self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Tell whoever listens now."""
        await self.link.publish(subject, data, headers=headers)

    async def subscribe(self, subject: str, callback: Callback) -> _Subscription:
        """Hear core messages, one after the other."""

        async def hear(message: Message) -> bytes:
            await callback(message)
            return b""

        return await self._listen(subject, Handlers(hear, 1), "")

    async def _listen(self, subject: str, handlers: Handlers, queue: str) -> _Subscription:
        loop = asyncio.get_running_loop()

        async def accept(message: Msg) -> None:
            headers = message.headers or {}
            left, deadline = headers.get(TIMEOUT_HEADER, ""), None
            if _MILLISECONDS.fullmatch(left):
                late_s = self._lateness.of(headers.get(STAMP_HEADER, ""))
                deadline = loop.time() + int(left) / 1000 - late_s
                if late_s and deadline <= loop.time():
                    log.warning("%s came %.1f s late and is not done", message.subject, late_s)
                    await self._reply_to(message.reply, TOO_LATE)(b"")
                    return
            arrived = Message(message.subject, message.data, headers)
            handlers.accept(arrived, deadline, self._reply_to(message.reply))

        subscription = _Subscription(await self.link.subscribe(subject, accept, queue), handlers)
        self._subscriptions.append(subscription)
        return subscription

    def _reply_to(self, reply_subject: str, status: str = "") -> Callable[[bytes], Awaitable[None]]:
        headers = {STATUS_HEADER: status} if status else None

        async def reply(data: bytes) -> None:
            if not reply_subject:
                return
            try:
                await self.link.publish(reply_subject, data, headers=headers)
            except Retry as error:
                log.info("an answer can't be sent: %s", error)

        return reply

    async def append_event(self, subject: str, data: bytes, *, message_id: str) -> int:
        """Append to the event stream, once for each id within the window."""
        try:
            ack = await self.link.store(subject, data, {MESSAGE_ID_HEADER: message_id})
        except ApiError as error:
            raise translate(error, f"event {message_id}") from error
        return int(ack["seq"])

    async def events(
        self, subject: str, *, since_seq: int | None
    ) -> AsyncGenerator[StreamMessage, None]:
        """Events in order, over any number of consumers' lives."""
        start = dict(from_sequence(since_seq or await last_sequence(self.link, STREAM) + 1))
        async with aclosing(lives(self.link, STREAM, subject, start)) as consumers:
            async for life in consumers:
                if life.last_seq + 1 < start["opt_start_seq"]:
                    log.warning("the event stream begins anew at %d", life.last_seq)
                    start["opt_start_seq"] = life.last_seq + 1
                    continue
                async with aclosing(life.deliveries()) as deliveries:
                    async for step in deliveries:
                        if step is not None:
                            start["opt_start_seq"] = step.seq + 1
                            yield StreamMessage(step.seq, step.subject, step.data, step.headers)

    async def last_event_seq(self) -> int:
        """The newest event's sequence number."""
        return await last_sequence(self.link, STREAM)

    async def find_event(self, subject: str, message_id: str, *, since: datetime) -> int | None:
        """The sequence number of the event of that id, appended at `since` or later.

        "It is not there" is said only by a server that has come to what the leader has: one that
        was away would say it of an event that was told, and have it told twice.
        """
        last = await newest(self.link, STREAM, subject)
        if last.seq == 0 or last.at < since:
            return None
        start = {"deliver_policy": "by_start_time", "opt_start_time": since.isoformat()}
        async with (
            consumer(self.link, STREAM, subject, start, headers_only=True) as life,
            aclosing(life.deliveries()) as deliveries,
        ):
            async for step in deliveries:
                if step is None:
                    break  # all that this server has was told, and it is not what its leader has
                if step.headers.get(MESSAGE_ID_HEADER) == message_id:
                    return step.seq
                if step.seq >= last.seq:
                    return None
        raise Retry(UNAVAILABLE, f"the search for {message_id} broke off")

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` each time the connection is there again."""
        self.link.on_reconnect(callback)

    async def close(self) -> None:
        """Let handlers finish, then disconnect."""
        try:
            for subscription in self._subscriptions:
                await subscription.stop()
        except (nats.errors.Error, OSError) as error:
            log.info("while closing: %s", error)
        await self.link.close()

    def __repr__(self) -> str:
        return f"<NatsBus {self.link!r}>"
