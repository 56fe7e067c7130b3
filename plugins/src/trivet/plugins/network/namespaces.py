"""Network namespaces by name, and doing something inside one without moving the process."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeVar

from trivet.contracts.errors import DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.plugins.network.command import run

T = TypeVar("T")

FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000


def exists(namespace: str) -> bool:
    """Whether a namespace of that name is there."""
    return (FOLDER / namespace).exists()


def names(prefix: str) -> list[str]:
    """The namespaces whose name begins with `prefix`."""
    if not FOLDER.exists():
        return []
    return sorted(p.name for p in FOLDER.iterdir() if p.name.startswith(prefix))


async def make(namespace: str) -> None:
    """Make a namespace; one that is there already is left as it is."""
    if not exists(namespace):
        await run("ip", "netns", "add", namespace)


async def remove(namespace: str) -> None:
    """Remove a namespace with the links in it; gone already is fine."""
    if exists(namespace):
        await run("ip", "netns", "delete", namespace)


async def inside(namespace: str, work: Callable[[], T]) -> T:
    """What `work` returns when it runs in a thread of its own inside the namespace.

    A thread that entered a namespace is not used for anything else. Raises
    `Refused(NOT_FOUND)` where there is no such namespace, and what `work` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def body() -> None:
        try:
            _enter(namespace)
            outcome = work()
        except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
            _tell(loop, done, None, error)
        else:
            _tell(loop, done, outcome, None)

    Thread(target=body, name=f"in {namespace}", daemon=True).start()
    return await done


def _tell(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[T],
    outcome: T | None,
    error: Exception | None,
) -> None:
    def settle() -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(outcome)  # type: ignore[arg-type]

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)


def _enter(namespace: str) -> None:
    try:
        fd = os.open(FOLDER / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Refused(NOT_FOUND, f"there is no network namespace {namespace}") from error
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise Fatal(DRIVER_FAILED, f"entering namespace {namespace}: {reason}")
    finally:
        os.close(fd)
