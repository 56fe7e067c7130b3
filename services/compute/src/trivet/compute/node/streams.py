"""The streams of this node's guests: what a ticket opens, and the listener it is for."""

from __future__ import annotations

import asyncio

from trivet.compute.node.consoles import Consoles
from trivet.contracts.compute.console import Screens
from trivet.contracts.compute.endpoints.node_stream_ticket import (
    TICKET_S,
    StreamKind,
    StreamRequest,
)
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.errors import NOT_SUPPORTED, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.stream import StreamTicket
from trivet.runtime.service import Runtime
from trivet.runtime.settings import Settings
from trivet.runtime.streams import Open, Pump, StreamServer, Tcp, copy, until_one_ends


class Streams:
    """Gives out tickets to streams of guests, and serves who comes with one."""

    def __init__(self, runtime: Runtime, hypervisor: Hypervisor) -> None:
        settings = runtime.settings
        path = settings.run_dir / f"streams-{settings.node}.sock"
        self._hypervisor = hypervisor
        self._consoles = Consoles(hypervisor.console_path)
        self._server = StreamServer(settings.node, path, _tcp(settings), runtime.clock)

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._server.run()

    async def ticket(self, request: StreamRequest) -> StreamTicket:
        """A ticket to a stream; raises `Refused` where there is none of that kind."""
        opens = await self._checked(request.id, request.kind)
        return self._server.ticket(opens, request.expires_s, request.on_behalf)

    def swap(self, secret: str) -> StreamTicket:
        """A fresh ticket for one that is used up by this."""
        return self._server.swap(secret, TICKET_S)

    async def _checked(self, id_: ResourceId, kind: StreamKind) -> Open:
        """What opens the stream; a guest that does not run is told now, not by a dead stream."""
        if kind is StreamKind.SERIAL:
            await self._hypervisor.console_path(id_)
            return lambda: self._consoles.open(id_)
        screens = self._hypervisor
        if not isinstance(screens, Screens):
            raise Refused(NOT_SUPPORTED, f"{self._hypervisor.name} gives its guests no screen")
        if kind is StreamKind.VNC:
            await screens.screen_path(id_)
            return lambda: _screen(screens, id_)
        picture = await screens.screenshot(id_)
        return lambda: _told(picture)


async def _screen(screens: Screens, id_: ResourceId) -> Pump:
    path = await screens.screen_path(id_)
    try:
        far_reader, far_writer = await asyncio.open_unix_connection(path)
    except OSError as error:
        detail = f"the screen of {id_} does not answer: {error.strerror}"
        raise Retry(UNAVAILABLE, detail, retry_after_s=1) from error

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await until_one_ends(copy(reader, far_writer), copy(far_reader, writer))
        finally:
            far_writer.close()

    return pump


async def _told(data: bytes) -> Pump:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return pump


def _tcp(settings: Settings) -> Tcp | None:
    """Where other nodes' gateways come to: only with a certificate to show them."""
    certificate, key = settings.gateway.certificate, settings.gateway.private_key
    if certificate is None or key is None:
        return None
    return Tcp(settings.address, settings.compute.stream_port, certificate, key)
