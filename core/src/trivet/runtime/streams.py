"""Byte streams between a node and a gateway: the node's listener, and who dials it.

The law is in `contracts.stream`. A node listens on a unix socket, open to everybody on it since
only a ticket gets any further, and, if it has a certificate, on TCP under TLS. Tickets live in the
node's memory: an agent that restarts forgets them, and whoever had one asks for another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.errors import (
    INTERNAL,
    TIMEOUT,
    TOO_MANY,
    UNAUTHENTICATED,
    UNAVAILABLE,
    ErrorBody,
    Fatal,
    Refused,
    Retry,
    TrivetError,
    from_body,
)
from trivet.contracts.model import NodeName
from trivet.contracts.stream import SECRET_HEX, OnBehalf, StreamTicket
from trivet.runtime.clock import Clock

log = logging.getLogger(__name__)

TICKETS_MAX = 1024
CONNECTIONS_MAX = 256
GREETING_S = 10.0
"""How long either side has for the first line."""

LINE_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
BACKLOG = 64

Pump = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Carries the bytes of one connection until it ends."""

Open = Callable[[], Awaitable[Pump]]
"""Opens a stream for one connection; raises `TrivetError`."""

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Tickets:
    """What secrets open: each once, and for a while. Only their hashes are kept."""

    def __init__(self, clock: Clock, bound: int = TICKETS_MAX) -> None:
        self._clock = clock
        self._bound = bound
        self._known: dict[bytes, tuple[float, Open, OnBehalf | None]] = {}

    def issue(self, opens: Open, expires_s: float, on_behalf: OnBehalf | None = None) -> str:
        """A new secret for `opens`. `Retry(TOO_MANY)` while too many wait to be used."""
        now = self._clock.monotonic()
        self._known = {k: v for k, v in self._known.items() if v[0] > now}
        if len(self._known) >= self._bound:
            raise Retry(TOO_MANY, "too many tickets wait to be used", retry_after_s=5)
        secret = secrets.token_hex(SECRET_HEX // 2)
        self._known[_digest(secret)] = (now + expires_s, opens, on_behalf)
        return secret

    def take(self, secret: str) -> tuple[Open, OnBehalf | None]:
        """What `secret` opens, and on whose behalf; from now on it opens nothing."""
        deadline, opens, on_behalf = self._known.pop(_digest(secret), (0.0, None, None))
        if opens is None or deadline <= self._clock.monotonic():
            hint = "a ticket is good once, and for a short while"
            raise Refused(UNAUTHENTICATED, "the ticket opens nothing", hint=hint)
        return opens, on_behalf


@dataclass(frozen=True)
class Tcp:
    """Where to listen for other nodes, with which certificate. `port` 0: any free one."""

    host: str
    port: int
    certificate: Path
    private_key: Path


class StreamServer:
    """A node's listener for streams. `path` is of its unix socket."""

    def __init__(self, node: str, path: Path, tcp: Tcp | None, clock: Clock) -> None:
        self._node = NodeName(node)
        self._path = path
        self._tcp = tcp
        self._tickets = Tickets(clock)
        self._port: int | None = None
        self._up = False
        self._open = 0

    def __repr__(self) -> str:
        return f"<StreamServer {self._path} port={self._port}>"

    async def run(self) -> None:
        """Listen until cancelled; connections that are open end then."""
        async with contextlib.AsyncExitStack() as stack:
            tasks: set[asyncio.Task[None]] = set()
            stack.push_async_callback(_end, tasks)
            accept = self._accepts(tasks)
            server = await asyncio.start_unix_server(accept, sock=_bound_socket(self._path))
            stack.callback(server.close)
            if self._tcp is not None:
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                tls.minimum_version = ssl.TLSVersion.TLSv1_3
                tls.load_cert_chain(self._tcp.certificate, self._tcp.private_key)
                remote = await asyncio.start_server(
                    accept, self._tcp.host, self._tcp.port, ssl=tls, backlog=BACKLOG
                )
                stack.callback(remote.close)
                self._port = remote.sockets[0].getsockname()[1]
            self._up = True
            try:
                await asyncio.Event().wait()
            finally:
                self._up, self._port = False, None

    def ticket(
        self, opens: Open, expires_s: float, on_behalf: OnBehalf | None = None
    ) -> StreamTicket:
        """A ticket to what `opens` opens."""
        if not self._up:
            raise Retry(UNAVAILABLE, f"{self._node} does not listen yet", retry_after_s=1)
        return StreamTicket(
            node=self._node,
            secret=self._tickets.issue(opens, expires_s, on_behalf),
            expires_s=expires_s,
            socket=str(self._path),
            host=self._tcp.host if self._tcp else None,
            port=self._port,
            on_behalf=on_behalf,
        )

    def swap(self, secret: str, expires_s: float) -> StreamTicket:
        """A fresh ticket for one that is used up by this."""
        opens, on_behalf = self._tickets.take(secret)
        return self.ticket(opens, expires_s, on_behalf)

    def _accepts(
        self, tasks: set[asyncio.Task[None]]
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return accept

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first line to its end."""
        self._open += 1
        try:
            try:
                if self._open > CONNECTIONS_MAX:
                    raise Retry(TOO_MANY, "too many streams are open", retry_after_s=5)
                async with asyncio.timeout(GREETING_S):
                    said = await reader.readuntil(b"\n")
                opens, _ = self._tickets.take(said.decode("ascii", "replace").strip())
                pump = await opens()
            except TrivetError as error:
                writer.write(b"-" + error.body().model_dump_json().encode() + b"\n")
                return
            writer.write(b"+\n")
            await pump(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("a stream's connection broke", exc_info=True)
        except Exception:
            log.exception("a stream failed")
        finally:
            self._open -= 1
            await _close(writer)


class Dialer:
    """Goes to the node that a ticket names, from `node`; `ca_file` proves other nodes."""

    def __init__(self, node: str | None = None, ca_file: Path | None = None) -> None:
        self._node = node
        self._ca_file = ca_file

    @asynccontextmanager
    async def dial(self, ticket: StreamTicket) -> AsyncIterator[Ends]:
        """Both ends of the stream; closed with the block. Raises what the node answers,
        `Retry` where it can't be reached."""
        try:
            async with asyncio.timeout(GREETING_S):
                reader, writer = await self._connect(ticket)
        except TimeoutError as error:
            raise Retry(TIMEOUT, f"{ticket.node} did not answer") from error
        except OSError as error:
            raise Retry(UNAVAILABLE, f"{ticket.node} can't be reached: {error}") from error
        try:
            await _greet(reader, writer, ticket)
            yield reader, writer
        finally:
            await _close(writer)

    async def _connect(self, ticket: StreamTicket) -> Ends:
        if ticket.socket is not None and ticket.node == self._node:
            with suppress(OSError), short_path(Path(ticket.socket)) as short:
                return await asyncio.open_unix_connection(short, limit=LINE_BYTES)
        if ticket.host is None or ticket.port is None or self._ca_file is None:
            hint = "it takes a certificate on both sides (gateway.certificate, gateway.ca_file)"
            raise Retry(UNAVAILABLE, f"streams of {ticket.node} don't leave it", hint=hint)
        tls = ssl.create_default_context(cafile=self._ca_file)
        return await asyncio.open_connection(ticket.host, ticket.port, ssl=tls, limit=LINE_BYTES)


async def _greet(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ticket: StreamTicket
) -> None:
    """Say the secret and hear the answer."""
    try:
        async with asyncio.timeout(GREETING_S):
            writer.write(ticket.secret.encode() + b"\n")
            answer = await reader.readuntil(b"\n")
    except TimeoutError as error:
        raise Retry(TIMEOUT, f"{ticket.node} did not answer") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Retry(UNAVAILABLE, f"{ticket.node} broke off") from error
    if answer.startswith(b"-"):
        raise from_body(ErrorBody.model_validate_json(answer[1:]))
    if answer != b"+\n":
        raise Fatal(INTERNAL, f"{ticket.node} gave an answer that is none")


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry what `reader` gives to `writer`, as fast as that takes it, until either ends."""
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def until_one_ends(*work: Coroutine[None, None, None]) -> None:
    """Do all of it at the same time until one is done; the others are then cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another path of the same socket, which is short however deep it lies: a socket's path is
    bounded to 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _bound_socket(path: Path) -> socket.socket:
    """A listening unix socket at `path`, in the place of whatever was there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    try:
        with short_path(fresh) as short:
            listener.bind(short)
        fresh.chmod(0o666)
        listener.listen(BACKLOG)
        fresh.rename(path)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
