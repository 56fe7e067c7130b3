"""`trivet vm console`: a guest's serial console in this terminal, or in a script's pipes; and
`trivet vm screenshot`.

In a terminal every key goes to the guest, and Ctrl-] leaves. From a pipe, what is read goes to
the guest; at its end the command shows what still comes until the guest is quiet, so that
`echo 'uname -a' | trivet vm console web` prints the answer.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from trivet.cli.session import Project, connected, in_project
from trivet.client.client import build_request
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT as SCREENSHOT
from trivet.contracts.errors import TrivetError

if TYPE_CHECKING:
    from trivet.client.streams import Stream

LEAVE = b"\x1d"
READ_BYTES = 4096
QUIET_S = 1.0
app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command("console")
def console(
    name: Name,
    project: Project = None,
    quiet_s: Annotated[
        float,
        typer.Option("--quiet", help="From a pipe: leave when the guest was quiet so long (s)."),
    ] = QUIET_S,
) -> None:
    """Talk to a VM's serial console; Ctrl-] leaves."""
    with connected() as client:
        request: Any = build_request(CONSOLE, name, in_project(project), client.project)
        with client.stream(CONSOLE, request) as stream:
            terminal = sys.stdin.isatty()
            if terminal:
                print(f"connected to {name}; Ctrl-] leaves\r", file=sys.stderr, flush=True)
            with _raw(sys.stdin.fileno(), terminal):
                ended = Session(stream, sys.stdout.buffer).run(
                    sys.stdin.fileno(), terminal, quiet_s
                )
            if terminal:
                print("\nthe console has ended" if ended else "\nleft", file=sys.stderr)


@app.command("screenshot")
def screenshot(
    name: Name,
    file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ],
    project: Project = None,
) -> None:
    """Take a picture of what a VM's screen shows (PNG)."""
    with connected() as client:
        request: Any = build_request(SCREENSHOT, name, in_project(project), client.project)
        picture = client.download(SCREENSHOT, request)
    if str(file) == "-":
        sys.stdout.buffer.write(picture)
        return
    try:
        file.write_bytes(picture)
    except OSError as error:
        raise typer.BadParameter(f"{file} can't be written: {error.strerror}") from error


class Session:
    """One stay at a console: keys one way, and what it shows the other."""

    def __init__(self, stream: Stream, out: BinaryIO) -> None:
        self._stream = stream
        self._out = out
        self._shown_at = time.monotonic()
        self._failed: TrivetError | None = None
        self._ended, self._end = os.pipe()

    def run(self, keys: int, terminal: bool, quiet_s: float) -> bool:
        """Carry on until left (False), or the console has ended (True). `keys` is a file
        descriptor. Raises what ended the stream."""
        shower = threading.Thread(target=self._show, daemon=True)
        shower.start()
        try:
            left = self._type(keys, terminal) and self._quiet(quiet_s)
        finally:
            self._stream.close()
            shower.join()
            os.close(self._ended)
            os.close(self._end)
        if self._failed is not None:
            raise self._failed
        return not left

    def _type(self, keys: int, terminal: bool) -> bool:
        """Send what is typed; whether the caller left, and not the console."""
        while True:
            ready, _, _ = select.select([keys, self._ended], [], [])
            if self._ended in ready:
                return False
            data = os.read(keys, READ_BYTES)
            before, leave, _ = data.partition(LEAVE) if terminal else (data, b"", b"")
            if before and not self._stream.send(before):
                return False
            if leave or not data:
                # A terminal that is left is left at once; a pipe that ends may have an answer due.
                self._shown_at = -float("inf") if terminal else time.monotonic()
                return True

    def _quiet(self, quiet_s: float) -> bool:
        """Wait until nothing was shown for `quiet_s`; False if the console ended before."""
        while (left_s := self._shown_at + quiet_s - time.monotonic()) > 0:
            if select.select([self._ended], [], [], left_s)[0]:
                return False
        return True

    def _show(self) -> None:
        try:
            for data in self._stream:
                self._out.write(data)
                self._out.flush()
                self._shown_at = time.monotonic()
        except TrivetError as error:
            self._failed = error
        finally:
            os.write(self._end, b"!")


@contextmanager
def _raw(terminal: int, really: bool) -> Iterator[None]:
    """The terminal with each key as it comes, put back after."""
    if not really:
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
