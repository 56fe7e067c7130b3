"""`trivet vm console` in a terminal and in pipes, against a gateway and a node that echoes."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trivet.cli.__main__ import run
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.stream import StreamTicket
from trivet.runtime.clock import SystemClock
from trivet.runtime.streams import Pump, StreamServer


class Guest:
    """A node with one guest: it greets, and answers each line with its length; `off` ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s.sock"
        self.server = StreamServer("n1", self.path, None, SystemClock())
        self.refusal: Refused | None = None

    async def ticket(self, request: Any, call: Any) -> StreamTicket:
        if self.refusal is not None:
            raise self.refusal
        return self.server.ticket(self._open, 5)

    async def _open(self) -> Pump:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello\r\n")
            typed = b""
            while data := await reader.read(100):
                *lines, typed = (typed + data.replace(b"\r", b"\n")).split(b"\n")
                for line in lines:
                    if line == b"off":
                        return
                    writer.write(b"%d letters\r\n" % len(line))

        return pump


class Screen(io.StringIO):
    """Stands in for standard output, which is written to in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = io.BytesIO()  # type: ignore[assignment]

    @property
    def shown(self) -> bytes:
        return self.buffer.getvalue()


@pytest.fixture
async def guest(served: Any, monkeypatch: Any, tmp_path: Path) -> AsyncIterator[Guest]:
    async with served() as (site, address, _):
        monkeypatch.setenv("TRIVET_URL", f"http://{address}")
        monkeypatch.setenv("TRIVET_TOKEN", "admin")
        monkeypatch.setenv("TRIVET_CONFIG", str(tmp_path / "none.toml"))
        found = Guest(tmp_path)
        await site.cloud.serve(CONSOLE, found.ticket)
        running = asyncio.create_task(found.server.run())
        yield found
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextmanager
def terminal(keys: int) -> Iterator[Screen]:
    """Standard input from the file descriptor `keys`, and standard output on a screen."""
    with pytest.MonkeyPatch.context() as patch, os.fdopen(keys) as stdin:
        screen = Screen()
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", screen)
        yield screen


async def test_from_a_pipe_the_answer_is_waited_for(
    guest: Guest,
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"four\n")
    os.close(writing)
    with terminal(reading) as screen:
        code = await asyncio.to_thread(run, ("vm", "console", "web", "--quiet", "0.3"))
    assert (code, screen.shown) == (0, b"hello\r\n4 letters\r\n")


async def test_a_console_that_ends_ends_the_command(
    guest: Guest,
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"off\n")  # and the pipe stays open
    with terminal(reading) as screen:
        code = await asyncio.to_thread(run, ("vm", "console", "web"))
    assert (code, screen.shown) == (0, b"hello\r\n")
    os.close(writing)


async def test_a_refusal_is_one_line(guest: Guest, monkeypatch: Any, capsys: Any) -> None:
    guest.refusal = Refused(CONFLICT, "vm web does not run")
    code = await asyncio.to_thread(run, ("vm", "console", "web"))
    assert code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trivet: resource.conflict: vm web does not run")


async def test_in_a_terminal_each_key_goes_and_one_leaves(
    guest: Guest,
) -> None:
    near, far = pty.openpty()

    def type_keys(screen: Screen) -> None:
        deadline = time.monotonic() + 10
        for keys, answer in ((b"five5\r", b"5 letters"), (b"\x03\r", b"1 letters")):
            while b"hello" not in screen.shown and time.monotonic() < deadline:
                time.sleep(0.01)
            os.write(near, keys)  # Ctrl-C goes to the guest, too
            while answer not in screen.shown and time.monotonic() < deadline:
                time.sleep(0.01)
        os.write(near, b"\x1d")

    with terminal(far) as screen:
        typist = threading.Thread(target=type_keys, args=(screen,))
        typist.start()
        code = await asyncio.to_thread(run, ("vm", "console", "web"))
        await asyncio.to_thread(typist.join)
    assert (code, screen.shown) == (0, b"hello\r\n5 letters\r\n1 letters\r\n")
    os.close(near)
