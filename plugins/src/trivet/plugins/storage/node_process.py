"""Commands, and daemons that outlive whoever started them.

The process table is the record of what runs: a daemon of ours names a socket of ours on its
command line, so that a service that starts again finds it there, without pid files that could
speak of a stranger. A daemon is ended through a pidfd that was opened before its command line
was checked, so that a number used again is never signalled.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.runtime.telemetry import span

PROC = Path("/proc")
COMMAND_TIMEOUT_S = 120.0
TERM_GRACE_S = 10.0
DEATH_S = 10.0
"""A killed process first ends what it has asked of the kernel: a write to a slow disk."""


@dataclass(frozen=True)
class Daemon:
    """A running daemon: its pid, and its whole command line."""

    pid: int
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


async def attempt(*argv: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Outcome:
    """Run a command to its end, in a session of its own; killed when it takes too long.

    It writes to files and not to pipes, since a daemon that it leaves behind may keep copies
    of those open for ever. They are in memory: a full /tmp must not cut what a command says.
    """

    def act() -> Outcome:
        with _in_memory("out") as out, _in_memory("err") as err:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=timeout_s,
                start_new_session=True,
                check=False,
            )
            for file in (out, err):
                file.seek(0)
            said = err.read().decode(errors="replace").strip()
            return Outcome(done.returncode, out.read().decode(errors="replace"), said)

    try:
        with span(f"run {Path(argv[0]).name}"):
            return await asyncio.to_thread(act)
    except subprocess.TimeoutExpired as error:
        raise Fatal(DRIVER_FAILED, f"{argv[0]} took over {timeout_s:.0f} s") from error
    except OSError as error:
        raise Fatal(DRIVER_FAILED, f"{argv[0]} did not start: {error}") from error


def _in_memory(name: str) -> BinaryIO:
    return os.fdopen(os.memfd_create(name), "w+b")


async def run(*argv: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
    """The output of a command that must succeed; else `Fatal` with what it said."""
    outcome = await attempt(*argv, timeout_s=timeout_s)
    if outcome.code != 0:
        said = outcome.stderr.splitlines()[-1:] or ["it said nothing"]
        raise Fatal(DRIVER_FAILED, f"{' '.join(argv[:3])} ended with {outcome.code}: {said[0]}")
    return outcome.stdout


def daemons(program: str, folder: Path) -> Iterator[Daemon]:
    """The running daemons of that program that name something in `folder`."""
    inside = f"{folder}/"
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        argv = _argv(int(entry.name))
        if argv and os.path.basename(argv[0]) == program and any(inside in a for a in argv):
            yield Daemon(int(entry.name), argv)


def _argv(pid: int) -> tuple[str, ...]:
    """The command line; empty for what is gone, a zombie or a kernel thread."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(part.decode(errors="replace") for part in raw.split(b"\0")[:-1])


def daemon_of(pid: int) -> Daemon | None:
    """The process of that pid; None: there is none."""
    argv = _argv(pid)
    return Daemon(pid, argv) if argv else None


def started_at(daemon: Daemon) -> int:
    """When it was started, in clock ticks since the machine was; what is gone: never."""
    try:
        return int(_stat(str(daemon.pid))[19])
    except (FileNotFoundError, ProcessLookupError):
        return sys.maxsize


def lives(daemon: Daemon) -> bool:
    """Whether that very daemon still runs."""
    return _argv(daemon.pid) == daemon.argv


def stopped(daemon: Daemon) -> bool:
    """Whether no thread of a daemon works: all are stopped, or it is gone."""
    try:
        tasks = [entry.name for entry in os.scandir(PROC / str(daemon.pid) / "task")]
        states = [_stat(f"{daemon.pid}/task/{task}")[0] for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return not lives(daemon)
    return all(state == "T" for state in states)


def let_run(daemon: Daemon) -> None:
    """Let a stopped daemon run on; one that runs, or is gone, is left alone."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(daemon.pid)
        try:
            if lives(daemon):
                signal.pidfd_send_signal(handle, signal.SIGCONT)
        finally:
            os.close(handle)


def _stat(process: str) -> list[str]:
    """The fields of a process's or thread's `stat` from its state on."""
    return (PROC / process / "stat").read_text().rpartition(")")[2].split()


async def end(daemon: Daemon, *, signals: bool = True, grace_s: float = TERM_GRACE_S) -> None:
    """End a daemon and see it gone: asked first (`signals` false: it was asked already),
    killed when it stays. A process of that number that is another one is left alone."""
    try:
        handle = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        if _argv(daemon.pid) != daemon.argv:
            return
        if signals:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not await _gone(handle, grace_s):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not await _gone(handle, DEATH_S):
                raise Fatal(DRIVER_FAILED, f"process {daemon.pid} does not die")
    except ProcessLookupError:
        return
    finally:
        os.close(handle)


async def _gone(handle: int, timeout_s: float) -> bool:
    """Whether the process of that pidfd ends within the time."""

    def wait() -> bool:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    return await asyncio.to_thread(wait)
