"""A bucket on NATS: JetStream's key-value layout, written with explicit expectations.

nats-py's own key-value class hides what a caller must know (whether a write was refused, denied
or may have happened) and reads from any replica; here each operation is one message with the
expected sequence in its header, and one reading from the stream's leader. A deletion leaves a
marker that a watch tells and that the server drops after `MARKER_TTL_S`; what vanished while a
watch was away for longer is told as deleted from what the watch had told before.

A deletion writes two markers, of which only the second is dropped with time. What a newer message
of a key replaced, the server finds again in its files when it was killed, and removes again for
the sake of the newer one; but a marker whose time is over it removes first (nats-server issue
8505). So a killed server would bring back the last value, were it that which the dropped marker
had replaced; as it is, it brings back the first marker, which says the same as nothing.

Whoever leads a stream may die with what it was asked, and the others take seconds to notice and to
choose the next. So each question is asked again while nobody answers: a read does no harm, and a
write carries an id of its own by which it is known again where it was done.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from trivet.contracts.errors import CONFLICT, TIMEOUT, UNAVAILABLE, Refused, Retry
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_config import stream_of
from trivet.runtime.nats_link import (
    API_TIMEOUT_S,
    DUPLICATE_IN_PROCESS,
    NOT_FOUND,
    WRONG_LAST_SEQUENCE,
    ApiError,
    Link,
    translate,
)
from trivet.runtime.nats_tail import (
    LAST_PER_SUBJECT,
    NO_MESSAGE,
    Consumer,
    Delivery,
    last_sequence,
    lives,
    newest,
)
from trivet.runtime.store import Change, Entry, Synced
from trivet.runtime.subjects import filter_of
from trivet.runtime.telemetry import span

log = logging.getLogger(__name__)

EXPECT = "Nats-Expected-Last-Subject-Sequence"
MESSAGE_ID = "Nats-Msg-Id"
OPERATION = "KV-Operation"
MARKER_REASON = "Nats-Marker-Reason"
MARKER_TTL_S = 3600
CREATE_ATTEMPTS = 5
ANSWER_S = 1.2
"""So long an answer is waited for before the same is asked again."""
ASK_AGAIN_S = 0.1
NOBODY_LEADS = 503
OPEN_TIMEOUT_S = 30.0
OPEN_AGAIN_S = 0.5

_KEY = re.compile(r"[A-Za-z0-9_\-=/]+(\.[A-Za-z0-9_\-=/]+)*")


@dataclass(frozen=True)
class _Raw:
    """The newest message of a key; `marker`: it says that the key was deleted."""

    value: bytes
    revision: int
    marker: bool
    headers: bytes


class NatsStore:
    """A service's bucket. Made by `NatsStore.open`."""

    def __init__(self, link: Link, bucket: str) -> None:
        self._link = link
        self._bucket = bucket
        self._stream = stream_of(bucket)
        self._subject = f"$KV.{bucket}."

    @classmethod
    async def open(cls, bus: NatsBus, bucket: str) -> NatsStore:
        """The bucket, once the servers have it ready. Raises the last error after a while."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + OPEN_TIMEOUT_S
        while True:
            try:
                await last_sequence(bus.link, stream_of(bucket))
            except Retry as error:
                if loop.time() > give_up:
                    raise
                log.info("waiting for bucket %s: %s", bucket, error)
                await asyncio.sleep(OPEN_AGAIN_S)
            else:
                return cls(bus.link, bucket)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    async def get(self, key: str) -> Entry | None:
        """The newest value, from the leader."""
        raw = await self._raw(key)
        return None if raw is None or raw.marker else Entry(key, raw.value, raw.revision)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that is not there."""
        expected = 0
        for _ in range(CREATE_ATTEMPTS):
            try:
                return await self._write(key, value, expected)
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
                raw = await self._raw(key)
                if raw is not None and not raw.marker:
                    raise
                expected = 0 if raw is None else raw.revision
        detail = f"{self._bucket}/{key} is being made and deleted by many at once"
        raise Retry(CONFLICT, detail, retry_after_s=0.2)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key that still has `revision`."""
        if revision < 1:
            raise ValueError(f"{key}: a revision to update is at least 1, not {revision}")
        return await self._write(key, value, revision)

    async def delete(self, key: str, revision: int) -> None:
        """Delete a key that still has `revision`; gone already is fine."""
        try:
            marked = await self._write(key, b"", revision, {OPERATION: "DEL"})
        except Refused as error:
            if error.code is not CONFLICT or await self.get(key) is not None:
                raise
            return
        try:
            fading = {OPERATION: "DEL", "Nats-TTL": f"{MARKER_TTL_S}s"}
            await self._write(key, b"", marked, fading)
        except (Refused, Retry) as error:
            # It is deleted as it is; made anew meanwhile, or a marker stays for good.
            log.info("%s/%s keeps its marker: %s", self._bucket, key, error)

    async def watch(self, prefix: str) -> AsyncGenerator[Change | Synced, None]:
        """Everything below `prefix`, then every change."""
        known: dict[str, int] = {}
        subject = self._subject + filter_of(prefix)
        async with aclosing(lives(self._link, self._stream, subject, LAST_PER_SUBJECT)) as made:
            async for life in made:
                try:
                    async with aclosing(self._follow(life, subject, known)) as steps:
                        async for step in steps:
                            yield step
                except Retry as error:
                    log.info("%s: %s", self._stream, error)

    async def _follow(
        self, life: Consumer, subject: str, known: dict[str, int]
    ) -> AsyncGenerator[Change | Synced, None]:
        """One consumer's life: all that is there, what vanished, `Synced`, then changes.

        The server that has the consumer may be one that was away and has not caught up: what it
        has to deliver is then not all that is there, and what it does not deliver has not
        vanished. So it must have come to what the stream's leader has as the newest.
        """
        missing, synced, reached = set(known), False, 0
        leader_has = (await newest(self._link, self._stream, subject)).seq
        if life.waiting == 0 and leader_has == 0:
            for change in _vanished(missing, known, life.last_seq):
                yield change
            synced = True
            yield Synced()
        async with aclosing(life.deliveries()) as deliveries:
            async for step in deliveries:
                if step is not None:
                    reached = step.seq
                    key = step.subject[len(self._subject) :]
                    missing.discard(key)
                    change = _change(key, step)
                    if known.get(key, 0) < change.revision and _note(change, known):
                        yield change
                if synced or (step is not None and step.pending > 0):
                    continue
                if step is None and reached < leader_has:
                    # A marker may have faded meanwhile.
                    leader_has = (await newest(self._link, self._stream, subject)).seq
                if reached >= leader_has:
                    for change in _vanished(missing, known, life.last_seq):
                        yield change
                    synced = True
                    yield Synced()

    async def _write(
        self, key: str, value: bytes, expected: int, headers: Mapping[str, str] | None = None
    ) -> int:
        _check_key(key)
        id_ = secrets.token_hex(12)
        sent = {EXPECT: str(expected), MESSAGE_ID: id_, **(headers or {})}
        asked = itertools.count()

        async def ask(wait_s: float) -> dict[str, Any]:
            next(asked)
            return await self._link.store(self._subject + key, value, sent, timeout_s=wait_s)

        try:
            with span(f"store write {key}"):
                ack = await self._ask(ask)
        except ApiError as error:
            if error.number in WRONG_LAST_SEQUENCE and next(asked) > 1:
                return await self._written(key, id_)
            raise translate(error, f"{self._bucket}/{key}") from error
        return int(ack["seq"])

    async def _written(self, key: str, id_: str) -> int:
        """The revision of a write that was asked for more than once, and refused: by what an
        earlier copy of it has written, or by somebody else's."""
        raw = await self._raw(key)
        if raw is not None and f"{MESSAGE_ID}: {id_}".encode() in raw.headers:
            return raw.revision
        detail = f"{self._bucket}/{key}: no answer in time; it may have happened"
        raise Retry(TIMEOUT, detail, retry_after_s=ASK_AGAIN_S)

    async def _raw(self, key: str) -> _Raw | None:
        _check_key(key)
        body = {"last_by_subj": self._subject + key}
        try:
            with span(f"store read {key}"):
                found = await self._ask(
                    lambda wait_s: self._link.api(
                        f"STREAM.MSG.GET.{self._stream}", body, timeout_s=wait_s
                    )
                )
        except ApiError as error:
            if error.status == NOT_FOUND and error.number == NO_MESSAGE:
                return None
            raise translate(error, f"{self._bucket}/{key}") from error
        message: dict[str, Any] = found["message"]
        headers = base64.b64decode(message.get("hdrs", ""))
        marker = OPERATION.encode() in headers or MARKER_REASON.encode() in headers
        return _Raw(base64.b64decode(message.get("data", "")), message["seq"], marker, headers)

    async def _ask(self, ask: Callable[[float], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The answer to what may be asked more than once, `ask` being given how long to wait.
        Raises what it raised last, where there is none in time or no connection any more."""
        now = asyncio.get_running_loop().time
        give_up = now() + API_TIMEOUT_S
        while True:
            try:
                return await ask(max(min(ANSWER_S, give_up - now()), ASK_AGAIN_S))
            except (Retry, ApiError) as error:
                if not _may_be_answered_yet(error) or not self._link.connected:
                    raise
                if now() + ASK_AGAIN_S >= give_up:
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    def __repr__(self) -> str:
        return f"<NatsStore {self._bucket}>"


def _may_be_answered_yet(error: Retry | ApiError) -> bool:
    """Whether it only says that nobody answered, that nobody leads, or that a first copy is still
    on its way."""
    if isinstance(error, ApiError):
        return error.status == NOBODY_LEADS or error.number == DUPLICATE_IN_PROCESS
    return error.code in (TIMEOUT, UNAVAILABLE)


def _change(key: str, step: Delivery) -> Change:
    deleted = OPERATION in step.headers or MARKER_REASON in step.headers
    return Change(key, None if deleted else step.data, step.seq)


def _note(change: Change, known: dict[str, int]) -> bool:
    """Keep what the watch knows; whether the change is news (a deletion of the unknown is not)."""
    if change.value is None:
        return known.pop(change.key, None) is not None
    known[change.key] = change.revision
    return True


def _vanished(missing: set[str], known: dict[str, int], last_seq: int) -> list[Change]:
    """Deletions of keys that were told and are there no more, without a marker left."""
    return [Change(key, None, max(known.pop(key) + 1, last_seq)) for key in sorted(missing)]


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
