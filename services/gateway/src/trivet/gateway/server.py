"""The HTTP server around the gateway: its socket, TLS, and an orderly stop.

Tokens travel with every request, so without a certificate the gateway listens on this machine's
own addresses alone. On a stop the streams of events end first (they would hold it up), then the
requests at work are let finish within a bound, then the last audit entries are sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn

from trivet.contracts.errors import Fatal
from trivet.gateway.app import Gateway
from trivet.gateway.head import BoundedHead
from trivet.runtime.settings import BAD_SETTINGS, GatewaySettings

BACKLOG = 1024
KEEP_ALIVE_S = 30
STOP_S = 5
TLS_HANDSHAKE_S = 10.0
TLS_GOODBYE_S = 0.5
"""How long a closed connection waits for its client to say goodbye too. Most never do, and a
stop waits for all connections."""

WS_MESSAGE_BYTES = 64 * 1024


class _Server(uvicorn.Server):
    """Uvicorn, without its own signal handlers: it would end the process before the trail of
    audit entries is sent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with bounds on the beginning and the end of a TLS connection, which uvicorn
        leaves at a minute and half a minute."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        protocol = cast(type[BoundedHead], self.config.http_protocol_class)

        def connection() -> asyncio.Protocol:
            state = self.lifespan.state
            return protocol(config=self.config, server_state=self.server_state, app_state=state)

        for sock in sockets or ():
            # Accepted connections inherit it. asyncio sets it only where the socket was made with
            # TCP's number, and without it each answer waits 40 ms for a delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self.config.ssl
        self.servers = [
            await loop.create_server(
                connection,
                sock=sock,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=TLS_GOODBYE_S if tls else None,
            )
            for sock in sockets or ()
        ]
        self.started = True


def _quiet(record: logging.LogRecord) -> bool:
    """Uvicorn tells every WebSocket's path, tickets and all, and calls an error what is only a
    refusal: neither goes to the log."""
    refused = record.getMessage().startswith("ASGI callable returned without completing")
    return record.levelno >= logging.WARNING and not refused


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
        http=BoundedHead.of(gateway.limits),
        ws_max_size=WS_MESSAGE_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )


async def serve(
    gateway: Gateway, settings: GatewaySettings, listener: socket.socket, stop: asyncio.Event
) -> None:
    """Serve until `stop`, then end in good order."""
    logging.getLogger("uvicorn.error").addFilter(_quiet)
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
