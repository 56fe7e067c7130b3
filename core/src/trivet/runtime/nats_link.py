"""One connection to the NATS servers, with the client's traps closed off.

What the bus and the store need of it and nats-py does not give: requests that fail at once when
the connection breaks or the server denies them (a denial comes as an asynchronous error that
names only the subject, lower-cased), the server's version checked, JetStream's errors told
apart, and readers that learn of a disconnect when it happens. Requests of all kinds share one
inbox below `_INBOX.<service>`, which is all the service may listen on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic_core import from_json

from trivet.contracts.errors import (
    CONFLICT,
    DENIED,
    INTERNAL,
    MALFORMED,
    TIMEOUT,
    UNAVAILABLE,
    Fatal,
    Refused,
    Retry,
    code,
)
from trivet.runtime.bus import MAX_PAYLOAD_BYTES
from trivet.runtime.nkeys import load_seed

log = logging.getLogger(__name__)

SERVER_TOO_OLD = code("bus.server_too_old", 500, "The NATS server is too old")

SERVER_MIN = (2, 12)
CONNECT_TIMEOUT_S = 30.0
RECONNECT_WAIT_S = 0.2
PING_INTERVAL_S = 5
PINGS_MISSED_MAX = 2
API_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 5

STATUS_HEADER = "Status"
NO_RESPONDERS = "503"
TOO_LATE = "408"
NOT_FOUND = 404
WRONG_LAST_SEQUENCE = (10071, 10164)
"""A compare-and-swap that lost; the second where another write of the key is being replicated."""
DUPLICATE_IN_PROCESS = 10158

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')

VERBS = {"publish": "publish", "subscription": "subscribe"}

Hook = Callable[[], Awaitable[None]]


@dataclass
class _Pending:
    subject: str
    answer: asyncio.Future[Msg]


class CameLate(Retry):
    """A request took longer to its listener than it had time; it was not done."""


class ApiError(Exception):
    """JetStream's refusal: `status` as in HTTP, `number` its own stable number."""

    def __init__(self, status: int, number: int, description: str) -> None:
        super().__init__(f"{description} ({status}, {number})")
        self.status = status
        self.number = number
        self.description = description


class Link:
    """A connection as one identity. Made by `Link.connect`."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.client = Client()
        self.inbox = f"_INBOX.{service}.{secrets.token_hex(8)}"
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.down.set()
        self._closing = False
        self._last_error = ""
        self._tokens = itertools.count()
        self._pending: dict[str, _Pending] = {}
        self._denied_subscriptions: set[str] = set()
        self._on_disconnect: set[Callable[[], None]] = set()
        self._on_reconnect: list[Hook] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        *,
        service: str,
        name: str,
        seed_file: Path | None,
        ca_file: Path | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Link:
        """Connect to the first of `urls` that takes us: a node names its own server first.
        Raises `Retry(UNAVAILABLE)` where no server takes us within `timeout_s`, `Fatal` where
        the key can't be used or the server is too old."""
        link = cls(service)
        seed = load_seed(seed_file) if seed_file else None
        if ca_file is not None:
            logging.getLogger("asyncio").addFilter(_is_news)
        try:
            async with asyncio.timeout(timeout_s):
                await link.client.connect(
                    list(urls),
                    name=name,
                    nkeys_seed_str=seed,
                    tls=ssl.create_default_context(cafile=str(ca_file)) if ca_file else None,
                    inbox_prefix=link.inbox,
                    error_cb=link._error,
                    disconnected_cb=link._disconnected,
                    reconnected_cb=link._reconnected,
                    closed_cb=link._closed,
                    max_reconnect_attempts=-1,
                    dont_randomize=True,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_MISSED_MAX,
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            why = link.client.last_error or error
            raise Retry(UNAVAILABLE, f"no bus at {', '.join(urls)}: {why}") from error
        try:
            check_version(link.client.connected_server_version)
            await link.subscribe(f"{link.inbox}.r.*", link._reply)
        except BaseException:
            await link.close()
            raise
        link._set_up()
        return link

    @property
    def connected(self) -> bool:
        """Whether the server is there now."""
        return self.up.is_set()

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Msg:
        """One reply. Raises as `trivet.runtime.bus` says."""
        token = str(next(self._tokens))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._pending[token] = _Pending(subject, answer)
        try:
            async with asyncio.timeout(timeout_s):
                await self.publish(subject, data, f"{self.inbox}.r.{token}", headers)
                message = await answer
        except TimeoutError:
            raise Retry(TIMEOUT, f"no answer on {subject} within {timeout_s:g} s") from None
        finally:
            del self._pending[token]
        status = message.headers.get(STATUS_HEADER) if message.headers else None
        if status == NO_RESPONDERS:
            raise Retry(UNAVAILABLE, f"nobody listens on {subject}")
        if status == TOO_LATE:
            raise CameLate(TIMEOUT, f"the request on {subject} came too late and was not done")
        return message

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a message. Raises `Retry(UNAVAILABLE)` where there is no connection."""
        if not self.up.is_set():
            raise Retry(UNAVAILABLE, "the bus is not connected")
        if len(data) > MAX_PAYLOAD_BYTES:
            raise Refused(MALFORMED, f"{len(data)} bytes; at most {MAX_PAYLOAD_BYTES}")
        try:
            await self.client.publish(subject, data, reply, dict(headers) if headers else None)
        except nats.errors.BadSubjectError as error:
            raise Refused(MALFORMED, f"not a subject: {subject!r}") from error
        except (nats.errors.Error, OSError) as error:
            raise Retry(UNAVAILABLE, f"can't send on {subject}: {error}") from error

    async def api(
        self,
        subject: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = API_TIMEOUT_S,
    ) -> dict[str, Any]:
        """A call of JetStream's API below `$JS.API`. Raises `ApiError` for its refusals."""
        data = json.dumps(body).encode() if body else b""
        message = await self.request(f"$JS.API.{subject}", data, timeout_s=timeout_s)
        return _result(message.data)

    async def store(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float = API_TIMEOUT_S,
    ) -> dict[str, Any]:
        """Publish into a stream; its acknowledgement. Raises `ApiError` for a refusal."""
        message = await self.request(subject, data, timeout_s=timeout_s, headers=headers)
        return _result(message.data)

    async def subscribe(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]], queue: str = ""
    ) -> Hook:
        """Subscribe, known to the server on return; the result ends it. Lasts over reconnects.
        Raises `Fatal(DENIED)` where it is not allowed."""
        try:
            made = await self.client.subscribe(
                subject, queue, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0
            )
            await self.round_trip()
        except (nats.errors.Error, OSError) as error:
            raise Retry(UNAVAILABLE, f"can't subscribe to {subject}: {error}") from error
        if subject.lower() in self._denied_subscriptions:
            self._denied_subscriptions.discard(subject.lower())
            raise Fatal(DENIED, f"{self.service} may not subscribe to {subject}")

        async def end() -> None:
            if not self.client.is_closed:
                await made.unsubscribe()

        return end

    def on_disconnect(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the connection breaks; the result ends that."""
        self._on_disconnect.add(callback)
        return lambda: self._on_disconnect.discard(callback)

    def on_reconnect(self, hook: Hook) -> None:
        """Call `hook` each time the connection is there again."""
        self._on_reconnect.append(hook)

    async def close(self) -> None:
        """Disconnect for good."""
        self._closing = True
        self._set_down()
        try:
            if self.client.is_connected:
                await self.round_trip()
        except (nats.errors.Error, OSError) as error:
            log.info("the last messages may not have left: %s", error)
        await self.client.close()
        self._break()

    async def round_trip(self) -> None:
        """Return when the server has worked through all that was sent so far.

        Twice: the client's flush lets its ping overtake what it still has in its buffer, but
        by the time that ping is answered the buffer has been written.
        """
        await self.client.flush(FLUSH_TIMEOUT_S)
        await self.client.flush(FLUSH_TIMEOUT_S)

    def _set_up(self) -> None:
        self.up.set()
        self.down.clear()

    def _set_down(self) -> None:
        self.up.clear()
        self.down.set()

    def _break(self) -> None:
        for pending in self._pending.values():
            if not pending.answer.done():
                detail = f"the connection broke during {pending.subject}; it may have happened"
                pending.answer.set_exception(Retry(TIMEOUT, detail))
        for callback in list(self._on_disconnect):
            callback()

    async def _reply(self, message: Msg) -> None:
        pending = self._pending.get(message.subject.rpartition(".")[2])
        if pending is not None and not pending.answer.done():
            pending.answer.set_result(message)

    async def _error(self, error: Exception) -> None:
        denied = _DENIED.search(str(error).lower())
        if denied is None:
            # The same again (a server that is not there yet, five times a second) is no news.
            text = str(error) or type(error).__name__
            log.log(logging.DEBUG if text == self._last_error else logging.WARNING, "bus: %s", text)
            self._last_error = text
            return
        what, subject = denied.groups()
        log.error("bus: %s may not %s to %s", self.service, VERBS[what], subject)
        if what == "subscription":
            self._denied_subscriptions.add(subject)
            return
        for pending in self._pending.values():
            if pending.subject.lower() == subject and not pending.answer.done():
                detail = f"{self.service} may not publish on {pending.subject}"
                pending.answer.set_exception(Fatal(DENIED, detail))

    async def _disconnected(self) -> None:
        if not self._closing:
            log.warning("bus: disconnected")
        self._set_down()
        self._break()

    async def _reconnected(self) -> None:
        log.info("bus: connected again")
        self._last_error = ""
        self._set_up()
        for hook in self._on_reconnect:
            task = asyncio.create_task(_run_hook(hook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _closed(self) -> None:
        self._set_down()
        self._break()
        if not self._closing:
            log.critical(
                "bus: the server closed the connection for good: %s", self.client.last_error
            )

    def __repr__(self) -> str:
        return f"<Link {self.service} {'up' if self.connected else 'down'}>"


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of asyncio's tells anything: the client's protocol says at the end of each
    TLS connection that it would keep it half open, and asyncio that this is not done."""
    return not record.getMessage().startswith("returning true from eof_received()")


async def _run_hook(hook: Hook) -> None:
    try:
        await hook()
    except Exception:
        log.exception("a reconnect hook failed")


def _result(data: bytes) -> dict[str, Any]:
    result: dict[str, Any] = from_json(data)
    error = result.get("error")
    if error:
        number = error.get("err_code", 0)
        raise ApiError(error.get("code", 500), number, error.get("description", "?"))
    return result


def check_version(version: Any) -> None:
    """Refuse servers that would silently ignore what we rely on."""
    if (version.major, version.minor) < SERVER_MIN:
        raise Fatal(
            SERVER_TOO_OLD,
            f"the NATS server is {version.major}.{version.minor}.{version.patch}",
            hint=f"{SERVER_MIN[0]}.{SERVER_MIN[1]} or later is needed",
        )


def translate(error: ApiError, what: str) -> Refused | Retry | Fatal:
    """JetStream's refusal as ours."""
    if error.number in WRONG_LAST_SEQUENCE:
        return Refused(CONFLICT, f"{what}: {error.description}")
    if error.number == DUPLICATE_IN_PROCESS:
        return Retry(TIMEOUT, f"{what}: {error.description}", retry_after_s=0.2)
    if error.status >= 500:
        return Retry(UNAVAILABLE, f"{what}: {error.description}")
    return Fatal(INTERNAL, f"{what}: {error}")
