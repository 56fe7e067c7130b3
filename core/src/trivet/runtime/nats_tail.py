"""Following a stream: one life of an ordered, ephemeral push consumer.

nats-py's own ordered consumer is deaf for many seconds after a server restart. Here a consumer
lives until the first sign of trouble (the connection broke, a message is missing, the heartbeat
stopped) and then ends; who follows makes the next one from where it stands. The server slows
down for a slow reader (flow control), so the queue between is bounded by its window.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.msg import Msg

from trivet.contracts.errors import Fatal, Retry
from trivet.runtime.nats_link import NOT_FOUND, ApiError, Link, translate

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
SILENCE_MAX_S = 5.0
INACTIVE_S = 10.0
AGAIN_FIRST_S = 0.1
AGAIN_LAST_S = 2.0
_NS = 1_000_000_000
NO_MESSAGE = 10037
NEVER = datetime.min.replace(tzinfo=UTC)

LAST_PER_SUBJECT: Mapping[str, Any] = {"deliver_policy": "last_per_subject"}


def from_sequence(seq: int) -> Mapping[str, Any]:
    """Deliver from that stream sequence on."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": max(seq, 1)}


@dataclass(frozen=True)
class Delivery:
    """A message of the stream; `pending`: how many more are waiting right now."""

    seq: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    pending: int


@dataclass(eq=False)
class Consumer:
    """A consumer's life. `last_seq`: the newest message when it was made; `waiting`: how many
    it had to deliver then."""

    link: Link
    waiting: int = 0
    last_seq: int = 0
    _inbox: asyncio.Queue[Msg | None] = field(default_factory=asyncio.Queue)
    _delivered: int = 0

    async def take(self, message: Msg) -> None:
        """From the subscription."""
        self._inbox.put_nowait(message)

    def end(self) -> None:
        """End this life, from outside."""
        self._inbox.put_nowait(None)

    async def deliveries(self) -> AsyncGenerator[Delivery | None, None]:
        """What comes, in order; None says that nothing is waiting now. Ends with the life."""
        while True:
            message = await self._next()
            if message is None:
                return
            status = message.headers.get("Status") if message.headers else None
            if status is None:
                delivery, number = _parse(message)
                self._delivered += 1
                if number != self._delivered:
                    log.warning("a message of %s is missing; reading anew", message.subject)
                    return
                yield delivery
            elif status != "100":
                log.warning("the consumer ended: %s", message.headers)
                return
            elif message.reply:
                await self.link.publish(message.reply, b"")
            elif not await self._idle(message.headers or {}):
                return
            else:
                yield None

    async def _next(self) -> Msg | None:
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        try:
            async with asyncio.timeout(SILENCE_MAX_S):
                return await self._inbox.get()
        except TimeoutError:
            log.warning("no heartbeat for %g s; reading anew", SILENCE_MAX_S)
            return None

    async def _idle(self, headers: Mapping[str, str]) -> bool:
        """A heartbeat: whether we have all that was sent."""
        stalled = headers.get("Nats-Consumer-Stalled")
        if stalled:
            await self.link.publish(stalled, b"")
        sent = int(headers.get("Nats-Last-Consumer", self._delivered))
        if sent != self._delivered:
            log.warning("%d messages are missing; reading anew", sent - self._delivered)
        return sent == self._delivered


def _parse(message: Msg) -> tuple[Delivery, int]:
    """The delivery, and its number in the consumer, both told by the reply subject:
    `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<seq>.<number>.<time>.<pending>`."""
    tokens = message.reply.split(".")
    seq, number, _, pending = tokens[5:9] if len(tokens) < 11 else tokens[7:11]
    delivery = Delivery(
        int(seq), message.subject, message.headers or {}, message.data, int(pending)
    )
    return delivery, int(number)


@asynccontextmanager
async def consumer(
    link: Link, stream: str, subject: str, start: Mapping[str, Any], *, headers_only: bool = False
) -> AsyncIterator[Consumer]:
    """A consumer of `subject` in `stream`, from `start` on. Raises as the bus does."""
    life = Consumer(link)
    deliver = f"{link.inbox}.d.{secrets.token_hex(6)}"
    forget = link.on_disconnect(life.end)
    unsubscribe = await link.subscribe(deliver, life.take)
    try:
        info = await _stream_info(link, stream)
        life.last_seq = info["state"]["last_seq"]
        name = secrets.token_hex(8)
        config = {
            "name": name,
            "deliver_subject": deliver,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "filter_subject": subject,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * _NS),
            "inactive_threshold": int(INACTIVE_S * _NS),
            "headers_only": headers_only,
            **start,
        }
        body = {"stream_name": stream, "config": config, "action": "create"}
        try:
            made = await link.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", body)
        except ApiError as error:
            raise translate(error, f"consumer of {stream}") from error
        life.waiting = made["num_pending"] + made["delivered"]["consumer_seq"]
        yield life
    finally:
        forget()
        await unsubscribe()


async def _stream_info(link: Link, stream: str) -> dict[str, Any]:
    try:
        return await link.api(f"STREAM.INFO.{stream}")
    except ApiError as error:
        raise translate(error, stream) from error


async def last_sequence(link: Link, stream: str) -> int:
    """The sequence number of the stream's newest message; 0 where there was none yet."""
    return int((await _stream_info(link, stream))["state"]["last_seq"])


@dataclass(frozen=True)
class Newest:
    """The newest message of a subject as the stream's leader has it; `seq` 0: there is none."""

    seq: int
    at: datetime = NEVER


async def newest(link: Link, stream: str, subject: str) -> Newest:
    """What the leader has. A consumer may be on a server that was away and has not caught up:
    only one that delivered this has told all that there was."""
    try:
        found = await link.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
    except ApiError as error:
        if error.status == NOT_FOUND and error.number == NO_MESSAGE:
            return Newest(0)
        raise translate(error, stream) from error
    message = found["message"]
    return Newest(int(message["seq"]), datetime.fromisoformat(message["time"]))


async def lives(
    link: Link, stream: str, subject: str, start: Mapping[str, Any]
) -> AsyncGenerator[Consumer, None]:
    """One consumer after the other, for ever, each made when the one before has ended and the
    connection is there. `start` is asked anew for each, so the caller may change it.
    Raises `Fatal(DENIED)` where reading is not allowed."""
    delay = AGAIN_FIRST_S
    while True:
        await link.up.wait()
        try:
            async with consumer(link, stream, subject, start) as life:
                delay = AGAIN_FIRST_S
                yield life
        except Retry as error:
            log.info("%s: %s", stream, error)
        except Fatal as error:
            if error.code.value == "bus.denied":
                raise
            log.warning("%s: %s", stream, error)
        await asyncio.sleep(delay)
        delay = min(delay * 2, AGAIN_LAST_S)
