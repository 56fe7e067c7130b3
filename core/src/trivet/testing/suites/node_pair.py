"""Two real nodes without machines: namespaces with a wire between them, and guests' frames.

For suites on real drivers (root). A driver acts in the namespace that the calling thread is in,
so whatever is done at a node is done from within it (`at`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from trivet.contracts.network.switch import Switch
from trivet.testing.suites.guests import ABSENT_S, TapWire, enter_namespace, frame_to
from trivet.testing.suites.switch_tunnels import Place

UNDERLAY = "under0"


class NodePair:
    """Two namespaces, joined by a veth with an address at each end."""

    def __init__(self, vteps: tuple[str, str]) -> None:
        self.vteps = vteps
        self.drivers: tuple[Switch, Switch]
        stem = f"tvt-{secrets.token_hex(3)}"
        self.namespaces = (f"{stem}-a", f"{stem}-b")
        self._wires = (TapWire(), TapWire())

    def __enter__(self) -> Self:
        one, two = self.namespaces
        for name in self.namespaces:
            _ip("netns", "add", name)
        peer = ("peer", "name", UNDERLAY, "netns", two)
        _ip("-n", one, "link", "add", UNDERLAY, "type", "veth", *peer)
        for name, address in zip(self.namespaces, self.vteps, strict=True):
            length = ("64", "nodad") if ":" in address else ("24",)
            place = (f"{address}/{length[0]}", "dev", UNDERLAY, *length[1:])
            _ip("-n", name, "address", "add", *place)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", UNDERLAY, "mtu", "1600", "up")
        # Neighbours find each other in their own time, which is not what is tested.
        ping = ("ip", "netns", "exec", one, "ping", "-q", "-c", "1", "-W", "1", self.vteps[1])
        assert any(subprocess.run(ping, check=False).returncode == 0 for _ in range(10))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for wire in self._wires:
            wire.close()
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False)

    @contextmanager
    def at(self, node: int) -> Iterator[None]:
        """Be in a node's namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespaces[node]}", os.O_RDONLY)
        try:
            enter_namespace(there)
            yield
        finally:
            enter_namespace(home)
            os.close(home)
            os.close(there)

    async def reaches(self, source: Place, target: Place, mac: str, size_bytes: int = 64) -> bool:
        """Send until it arrives, or (it should not) for a moment once both ends forward."""
        mark = secrets.token_bytes(32)
        frame = frame_to(mac, mark).ljust(size_bytes, b"\0")
        for node, device in (source, target):
            with self.at(node):
                await self._wires[node].settled(device)
        limit = time.monotonic() + ABSENT_S
        while time.monotonic() < limit:
            self._wires[source[0]].send(source[1], frame)
            if self._wires[target[0]].heard(target[1], mark):
                return True
            await asyncio.sleep(0.01)
        return False

    async def answer(self, source: Place, address: str) -> str | None:
        """Ask by ARP, and wait a moment for an answer."""
        node, device = source
        wire, own = self._wires[node], bytes.fromhex("0200000000fe")
        with self.at(node):
            await wire.settled(device)
        asked = socket.inet_aton(address)
        body = b"\0\1\x08\0\6\4\0\1" + own + socket.inet_aton("10.9.0.1") + bytes(6) + asked
        request = b"\xff" * 6 + own + b"\x08\x06" + body
        limit = time.monotonic() + ABSENT_S
        while time.monotonic() < limit:
            wire.send(device, request)
            await asyncio.sleep(0.01)
            for frame in wire.frames(device):
                if (
                    frame[12:14] == b"\x08\x06"
                    and frame[20:22] == b"\0\2"
                    and frame[28:32] == asked
                ):
                    return frame[22:28].hex(":")
        return None

    async def leave(self, place: Place) -> None:
        """Unplug the guest there."""
        self._wires[place[0]].leave(place[1])

    async def cut(self) -> None:
        """Take the wire down."""
        _ip("-n", self.namespaces[0], "link", "set", UNDERLAY, "down")

    async def empty_tables(self, node: int, vni: int) -> None:
        """Flush the entries of the tunnel's link, the bridge's and its own."""
        for table in ("master", "self"):
            command = ("bridge", "-n", self.namespaces[node], "fdb", "flush")
            subprocess.run([*command, "dev", f"tvvx{vni}", table], check=True)  # noqa: ASYNC221


class Placed:
    """A driver whose every call is made from within its node's namespace."""

    def __init__(self, driver: Any, pair: NodePair, node: int) -> None:
        self._driver = driver
        self._pair = pair
        self._node = node

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)

        async def call(*arguments: Any) -> Any:
            with self._pair.at(self._node):
                return await method(*arguments)

        return call


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True)
