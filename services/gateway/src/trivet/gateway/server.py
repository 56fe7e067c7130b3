"""The HTTP server around the gateway: its socket, TLS, and an orderly stop.

Tokens travel with every request, so without a certificate the gateway listens on this machine's
own addresses alone. On a stop the streams of events end first (they would hold it up), then the
requests at work are let finish within a bound, then the last audit entries are sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trivet.contracts.errors import Fatal
from trivet.gateway.app import Gateway
from trivet.runtime.settings import BAD_SETTINGS, GatewaySettings

BACKLOG = 1024
KEEP_ALIVE_S = 30
STOP_S = 5
HEADER_BYTES = 32 * 1024
WS_MESSAGE_BYTES = 4096


class _Server(uvicorn.Server):
    """Uvicorn, without its own signal handlers: it would end the process before the trail of
    audit entries is sent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


class BoundedHead(HttpToolsProtocol):
    """Uvicorn's fast protocol, which by itself takes in a request line and headers of any
    size: here a connection whose head grows over the bound is closed."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Take in what came; it may hold the end of a head, a body, the next head."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEADER_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is in: what comes now is body."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is in: what comes now is the next head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()


def listening_socket(settings: GatewaySettings) -> socket.socket:
    """The socket to listen on. Raises `Fatal` where it can't be had, or must not be open."""
    if settings.certificate is None and not _is_loopback(settings.host):
        raise Fatal(
            BAD_SETTINGS,
            f"gateway.host is {settings.host}, without a certificate",
            hint="set gateway.certificate and gateway.private_key, or listen on 127.0.0.1",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        detail = f"can't listen on {settings.host} port {settings.port}: {error.strerror}"
        raise Fatal(BAD_SETTINGS, detail, hint="set gateway.host and gateway.port") from error
    listener.listen(BACKLOG)
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _config(gateway: Gateway, settings: GatewaySettings) -> uvicorn.Config:
    for path in (settings.certificate, settings.private_key):
        if path is not None and not path.is_file():
            raise Fatal(BAD_SETTINGS, f"{path} is not there", hint="`trivet up` makes it")
    return uvicorn.Config(
        gateway.app,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=BoundedHead,
        ws_max_size=WS_MESSAGE_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )


async def serve(
    gateway: Gateway, settings: GatewaySettings, listener: socket.socket, stop: asyncio.Event
) -> None:
    """Serve until `stop`, then end in good order."""
    server = _Server(_config(gateway, settings))
    await gateway.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        gateway.end_streams()
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        await gateway.stop()
