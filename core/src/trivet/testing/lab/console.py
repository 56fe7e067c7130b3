"""A guest's serial console as a person at its shell has it: a command is typed, its answer read.

The line is the guest's alone to share: what something else in it prints meanwhile is part of the
answer. Marks tell the answer from the echo of what was typed, which holds them in pieces.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from trivet.contracts.model import ResourceId
from trivet.host.layout import Layout

LOOK_S = 0.2
TAIL_LOOK_S = 0.01

_numbers = itertools.count(1)


def console_socket(layout: Layout, vm: ResourceId | str) -> Path:
    """Where the console of a VM that runs on the node of `layout` is reached."""
    return layout.run / "compute/libvirt/console" / f"{vm}.sock"


def console_log(layout: Layout, vm: ResourceId | str) -> Path:
    """The file that takes what the console shows; it begins anew with each start of the VM."""
    return layout.state / "compute/libvirt/console" / f"{vm}.log"


class NoAnswer(AssertionError):
    """The guest did not answer in time, or its console closed."""


class Console:
    """The console behind the socket at `path`, of a guest that waits at its shell."""

    def __init__(self, path: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(path))
        self._line.settimeout(LOOK_S)
        self._mark = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.close()

    def tell(self, command: str) -> None:
        """Type a command; it may go on for as long as it likes."""
        self._mark = f"{os.getpid():x}-{next(_numbers)}"
        ended = f"ended=$?; echo; echo $ended {self._mark}'>'"
        self._line.sendall(f"\necho '<'{self._mark}; {command}; {ended}\n".encode())

    def heard(self, seconds: float) -> tuple[str, int]:
        """What the command has printed, and how it ended. Raises `NoAnswer`."""
        said, deadline = b"", time.monotonic() + seconds
        while f" {self._mark}>".encode() not in said:
            if time.monotonic() > deadline:
                raise NoAnswer(f"not within {seconds:g} s, but {said[-500:]!r}")
            try:
                more = self._line.recv(65536)
            except TimeoutError:
                continue
            if not more:
                raise NoAnswer(f"the console closed after {said[-500:]!r}")
            said += more
        text = said.decode(errors="replace").replace("\r", "")
        answer = text.partition(f"<{self._mark}\n")[2].partition(f" {self._mark}>")[0]
        printed, _, code = answer.rpartition("\n")
        return printed.strip(), int(code)

    def ask(self, command: str, seconds: float) -> str:
        """What a command prints that has to end well. Raises `AssertionError`."""
        self.tell(command)
        printed, code = self.heard(seconds)
        assert code == 0, f"{command!r} ended with {code}: {printed[-500:]}"
        return printed


class ConsoleTail:
    """All that a console shows from now on, read from its log by a thread of its own: `lines`
    that are whole, each with the moment (monotonic, s) at which it was seen. A log that begins
    anew, because the guest does, is read on from its beginning."""

    def __init__(self, path: Path) -> None:
        self.lines: list[tuple[float, str]] = []
        self._path = path
        self._read_bytes = path.stat().st_size
        self._rest = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(TAIL_LOOK_S):
            with suppress(FileNotFoundError):
                self._look()

    def _look(self) -> None:
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read_bytes:
                self._read_bytes, self._rest = 0, b""
            file.seek(self._read_bytes)
            more = file.read()
        self._read_bytes += len(more)
        *whole, self._rest = (self._rest + more).split(b"\n")
        now = time.monotonic()
        self.lines += [(now, line.decode(errors="replace").rstrip("\r")) for line in whole]
