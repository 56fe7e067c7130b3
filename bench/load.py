"""HTTP load from this process: kept-alive connections, one request at a time on each.

Small on purpose: what a general client does per request would be measured too.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A reply: its status, its body, and the seconds from the first byte sent to the last read."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Connection:
    """One connection to a server on loopback."""

    def __init__(self, port: int, token: str | None) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1:{port}\r\n"
        if token:
            self._head += f"Authorization: Bearer {token}\r\n"

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, method: str, path: str, document: Any = None) -> Answer:
        """One request and its reply."""
        body = json.dumps(document).encode() if document is not None else b""
        head = f"{method} {path} HTTP/1.1\r\n{self._head}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        begun = time.perf_counter()
        self._writer.write(head.encode() + b"\r\n" + body)
        status, length = 0, 0
        while (line := await self._reader.readline()) not in (b"\r\n", b""):
            if line.startswith(b"HTTP/"):
                status = int(line.split()[1])
            elif line[:15].lower() == b"content-length:":
                length = int(line[15:])
        answer = await self._reader.readexactly(length)
        return Answer(status, answer, time.perf_counter() - begun)

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


@dataclass(frozen=True)
class Load:
    """What a run of requests came to: the latency of each in seconds, the wall time, and the
    body of the last reply."""

    seconds: list[float]
    wall_s: float
    last: bytes = b""

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return len(self.seconds) / self.wall_s


async def run_load(
    port: int,
    token: str | None,
    requests: Iterable[tuple[str, str, Any]],
    *,
    wide: int,
    good: Callable[[Answer], bool] = lambda answer: answer.status in (200, 201),
) -> Load:
    """Send all requests over `wide` connections. Raises `RuntimeError` at the first bad reply."""
    waiting = iter(requests)
    seconds: list[float] = []
    last = b""

    async def work() -> None:
        nonlocal last
        connection = Connection(port, token)
        await connection.open()
        try:
            for method, path, document in waiting:
                answer = await connection.ask(method, path, document)
                if not good(answer):
                    raise RuntimeError(f"{method} {path}: {answer.status} {answer.body[:500]!r}")
                seconds.append(answer.seconds)
                last = answer.body
        finally:
            connection.close()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(wide):
            group.create_task(work())
    return Load(seconds, time.perf_counter() - begun, last)
