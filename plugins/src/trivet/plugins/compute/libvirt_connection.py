"""The connection to libvirtd: kept, lost and found again, with its events.

libvirtd may be killed, hang or be replaced at any time while guests run on. So nobody outside
holds a connection: calls go through `Connection.run`, which raises `Retry` while libvirtd is
away, and one task reconnects for as long as it takes, subscribing to events anew each time.
libvirt's event loop runs in one daemon thread of the process: it lives through the death of any
connection, and events are only handed to asyncio, never handled, there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from trivet.contracts.errors import (
    CONFLICT,
    DRIVER_FAILED,
    INTERNAL,
    NOT_FOUND,
    NOT_SUPPORTED,
    UNAVAILABLE,
    Fatal,
    Refused,
    Retry,
    TrivetError,
)

if TYPE_CHECKING:
    import libvirt

log = logging.getLogger(__name__)
T = TypeVar("T")

CALLS_AT_ONCE = 8
CALL_BOUND_S = 60.0
FIRST_CONNECT_S = 5.0
RECONNECT_S = (0.2, 5.0)
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 4

RawEvent = Callable[[str, str, int, int], None]
"""Called in the asyncio loop with a domain's UUID, `lifecycle`, `reboot` or `device` (one came or
went), event, detail."""

_loop_lock = threading.Lock()
_loop_thread: threading.Thread | None = None


def _start_event_loop() -> None:
    """Start libvirt's event loop, once a process; it must exist before any connection."""
    import libvirt

    global _loop_thread
    with _loop_lock:
        if _loop_thread is not None:
            return
        libvirt.registerErrorHandler(_swallow, None)  # else errors go to stderr as well
        libvirt.virEventRegisterDefaultImpl()
        _loop_thread = threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True)
        _loop_thread.start()


def _run_event_loop() -> None:
    import libvirt

    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt's event loop failed; it goes on")


def _swallow(_context: object, _error: object) -> None:
    """Errors are raised as exceptions; libvirt's own printing of them is not wanted."""


class Connection:
    """A connection to the libvirtd at `uri` that repairs itself.

    `on_event` gets the events of domains; `on_up` is called after every (re)connection, for
    whoever must look at what was missed. Both run in the asyncio loop.
    """

    def __init__(self, uri: str, on_event: RawEvent, on_up: Callable[[], None]) -> None:
        self._uri = uri
        self._on_event = on_event
        self._on_up = on_up
        self._connection: libvirt.virConnect | None = None
        self._pool = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="libvirt-call")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reason = "not connected yet"

    def __repr__(self) -> str:
        return f"<Connection {self._uri} {'up' if self._connection else self._reason}>"

    async def open(self) -> None:
        """Begin to connect; returns when connected or after a few seconds without."""
        self._loop = asyncio.get_running_loop()
        _start_event_loop()
        self._task = asyncio.create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONNECT_S):
                await self._up.wait()

    async def close(self) -> None:
        """Disconnect. A call that is under way ends on its own."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(_close, connection)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[[libvirt.virConnect], T]) -> T:
        """The result of the blocking `call`, made in a thread.

        Raises `Retry` while libvirtd is away or does not answer in `CALL_BOUND_S`, else what
        `translate` makes of libvirt's error.
        """
        import libvirt

        connection = self._connection
        if connection is None:
            raise self._away()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CALL_BOUND_S):
                return await loop.run_in_executor(self._pool, call, connection)
        except TimeoutError as e:
            raise Retry(UNAVAILABLE, f"libvirtd did not answer in {CALL_BOUND_S:g} s") from e
        except libvirt.libvirtError as e:
            if self._connection is not connection or not _alive(connection):
                self._lose(connection)
                raise self._away() from e
            raise translate(e) from e

    def _away(self) -> Retry:
        return Retry(
            UNAVAILABLE,
            f"libvirtd at {self._uri} is away: {self._reason}",
            hint="it is connected to again by itself; is libvirtd running?",
            retry_after_s=1.0,
        )

    async def _keep(self) -> None:
        """Connect, wait until the connection is lost, connect again, for ever."""
        delay_s = RECONNECT_S[0]
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                connection = await loop.run_in_executor(self._pool, self._connect)
            except Exception as e:  # noqa: BLE001 - whatever it is, the answer is to try again
                self._reason = str(e)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RECONNECT_S[1])
                continue
            delay_s = RECONNECT_S[0]
            self._connection = connection
            self._up.set()
            log.info("connected to libvirtd at %s", self._uri)
            self._on_up()
            await self._lost.wait()
            log.warning("lost libvirtd at %s; connecting again", self._uri)
            await loop.run_in_executor(self._pool, _close, connection)

    def _connect(self) -> libvirt.virConnect:
        import libvirt

        connection = libvirt.open(self._uri)
        connection.registerCloseCallback(self._closed, None)
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        for name, id_ in (
            ("lifecycle", libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE),
            ("reboot", libvirt.VIR_DOMAIN_EVENT_ID_REBOOT),
            ("device", libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED),
            ("device", libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED),
        ):
            connection.domainEventRegisterAny(None, id_, self._received, name)
        return connection

    def _received(self, _connection: Any, domain: Any, *rest: Any) -> None:
        """An event, in libvirt's thread. Asking libvirtd anything here would never return."""
        event, detail, name = rest if len(rest) == 3 else (0, 0, rest[-1])
        self._post(self._on_event, domain.UUIDString(), name, event, detail)

    def _closed(self, connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        """The connection broke, in libvirt's thread."""
        self._reason = f"the connection was closed (reason {reason})"
        self._post(self._lose_any)

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                self._loop.call_soon_threadsafe(callback, *args)

    def _lose_any(self) -> None:
        """A close callback does not say reliably whose; the living connection is kept."""
        if self._connection is not None and not _alive(self._connection):
            self._lose(self._connection)

    def _lose(self, connection: libvirt.virConnect) -> None:
        if self._connection is connection:
            self._connection = None
            self._lost.set()


def _alive(connection: libvirt.virConnect) -> bool:
    """Whether the connection is open (does not ask libvirtd)."""
    import libvirt

    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _close(connection: libvirt.virConnect) -> None:
    import libvirt

    with contextlib.suppress(libvirt.libvirtError):
        connection.unregisterCloseCallback()
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


def translate(error: libvirt.libvirtError) -> TrivetError:
    """What libvirt's error means to us."""
    import libvirt

    code, said = error.get_error_code(), str(error)
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return Refused(NOT_FOUND, said)
    if code in (
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_XML_ERROR,
    ):
        return Refused(NOT_SUPPORTED, said)
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return Retry(CONFLICT, said, retry_after_s=1.0)
    if code in (
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_OPERATION_FAILED,
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    ):
        # A disk's socket or a card's device that is not there (yet) is told this way.
        return Retry(DRIVER_FAILED, said, retry_after_s=3.0)
    return Fatal(DRIVER_FAILED if code else INTERNAL, said)
