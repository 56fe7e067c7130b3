"""The metadata service of this node: one listener in each network's gateway here.

A guest asks 169.254.169.254; by the network whose gateway heard it and its source address, which
the firewall's anti-spoofing vouches for, it is known by which port it asks. The port's owner, a
VM, is asked for at the compute service. Listeners are this process's: with it they go, and its
successor opens them anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from trivet.contracts.compute.endpoints.vm_instance_data import ENDPOINT as INSTANCE_DATA
from trivet.contracts.compute.endpoints.vm_instance_data import InstanceDataRequest
from trivet.contracts.compute.vm import VM
from trivet.contracts.errors import Refused, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import GatewayDriver
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.network.domain import metadata_http as http
from trivet.network.domain.metadata import Asker, look_up
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 64
REMEMBERED_MAX = 4096

Find = Callable[[ResourceId, str], tuple[Network, Port] | None]


@dataclass
class _Listener:
    server: asyncio.Server
    connections: int = 0


class MetadataService:
    """Answers the guests of this node."""

    def __init__(
        self,
        runtime: Runtime,
        gateway: GatewayDriver,
        networks: Collection[Network],
        ports: Collection[Port],
    ) -> None:
        self._runtime = runtime
        self._gateway = gateway
        self._networks = networks
        self._ports = ports
        self._secret = secrets.token_bytes(32)
        self._listeners: dict[ResourceId, _Listener] = {}
        self._buckets: dict[tuple[ResourceId, str], http.Bucket] = {}

    async def serve(self, networks: Iterable[ResourceId], anew: set[ResourceId]) -> None:
        """Listen in the gateways of exactly these; in those `anew` a listener may be lost."""
        wanted = set(networks)
        for network in [n for n in self._listeners if n not in wanted or n in anew]:
            self._listeners.pop(network).server.close()
        for network in sorted(wanted - self._listeners.keys()):
            try:
                await self._listen(network)
            except (TrivetError, OSError) as error:
                log.warning("no metadata in %s: %s", network, error)

    async def close(self) -> None:
        """Listen nowhere."""
        await self.serve((), set())

    async def _listen(self, network: ResourceId) -> None:
        listening = socket.socket(fileno=await self._gateway.metadata_socket(network))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(network, reader, writer)

        server = await asyncio.start_server(
            serve, sock=listening, limit=http.HEAD_BYTES, start_serving=False
        )
        # Known before anything can stop this half-way: who is known is closed.
        self._listeners[network] = _Listener(server)
        await server.start_serving()

    async def _connected(
        self, network: ResourceId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        listener = self._listeners.get(network)
        try:
            if listener is None or listener.connections >= CONNECTIONS_MAX:
                return
            listener.connections += 1
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    source = str(ip_address(writer.get_extra_info("peername")[0]))
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self.answer(network, source, head))
                    await writer.drain()
            finally:
                listener.connections -= 1
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            log.debug("a guest of %s did not finish its request", network)
        finally:
            writer.close()

    async def answer(self, network: ResourceId, source: str, head: bytes) -> bytes:
        """The answer to a request that came from `source` in the network."""
        asked = http.parse(head)
        if asked is None:
            return http.reply(400)
        if http.forbidden(asked):
            return http.reply(403)
        if not self._may(network, source):
            return http.reply(429)
        try:
            asker = await self._asker(network, source)
        except Refused:
            asker = None
        except TrivetError as error:
            log.info("metadata for %s in %s: %s", source, network, error)
            return http.reply(503)
        if asker is None:
            return http.reply(404)
        return self._answer(asked, asker)

    def _answer(self, asked: http.Asked, asker: Asker) -> bytes:
        now = self._runtime.clock.now().timestamp()
        if asked.method == "PUT":
            ttl = http.wanted_ttl(asked)
            if asked.path != http.TOKEN_PATH:
                return http.reply(405)
            if ttl is None:
                return http.reply(400)
            return http.reply(200, http.make_token(self._secret, asker.vm.id, int(now) + ttl))
        if asked.method not in ("GET", "HEAD"):
            return http.reply(405)
        token = asked.headers.get(http.TOKEN_HEADER)
        if token is not None and not http.good_token(self._secret, asker.vm.id, token, now):
            return http.reply(401)
        text = look_up(asked.path, asker)
        body = asked.method == "GET"
        return http.reply(404) if text is None else http.reply(200, text, body=body)

    def _may(self, network: ResourceId, source: str) -> bool:
        now = self._runtime.clock.monotonic()
        if len(self._buckets) >= REMEMBERED_MAX:
            self._buckets.clear()
        key = (network, source)
        self._buckets[key], may = http.take(self._buckets.get(key), now)
        return may

    async def _asker(self, network: ResourceId, source: str) -> Asker | None:
        here = self._networks.by_id(network)
        port = self._port(network, source)
        if here is None or port is None or port.meta.owner is None:
            return None
        owner = port.meta.owner
        if owner.kind != VM.name:
            return None
        request = InstanceDataRequest(project=owner.project, name=owner.name, id=owner.id)
        vm = await self._runtime.client.call(INSTANCE_DATA, request)
        return Asker(vm, port, here)

    def _port(self, network: ResourceId, source: str) -> Port | None:
        """The port of this node that has the address, in that network and no other."""
        return next(
            (
                p
                for p in self._ports.list()
                if p.status.network_id == network
                and source in p.status.addresses
                and p.spec.node == self._runtime.node
            ),
            None,
        )
