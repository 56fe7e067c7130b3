"""A whole node in one process: every service as it ships, fake drivers, and the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from trivet.compute.bootstrap import bootstrap as compute
from trivet.gateway.app import Gateway
from trivet.gateway.limits import Limits
from trivet.gateway.server import serve
from trivet.network.bootstrap import bootstrap as network
from trivet.runtime.settings import GatewaySettings
from trivet.runtime.streams import Dialer
from trivet.security.bootstrap import bootstrap as security
from trivet.storage.bootstrap import bootstrap as storage
from trivet.testing.fakes import plugin
from trivet.testing.harness import Harness
from trivet.testing.memory_bus import MemoryBus
from trivet.testing.memory_store import MemoryStore
from trivet.testing.set_clock import SetClock

TOKEN = f"trv_0123456789abcdef_{'x' * 43}"
SERVICES = {"security": security, "storage": storage, "network": network, "compute": compute}
NO_BOUNDS = Limits(rate_per_s=1e9, rate_burst=10**9, denials_per_s=1e9, denials_burst=10**9)


@dataclass
class Node:
    """The node, and an administrator's connection to its API."""

    harness: Harness
    gateway: Gateway
    http: httpx.AsyncClient
    address: str

    async def settled(self, path: str, **body: Any) -> Any:
        """Make a resource and wait until it has settled."""
        reply = await self.http.post(f"{path}?wait=30", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()


@asynccontextmanager
async def running_node(folder: Path, limits: Limits = NO_BOUNDS) -> AsyncIterator[Node]:
    token_file = folder / "first-token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    settings: dict[str, Any] = {
        "compute": {"hypervisor": "fake", "import_dir": folder / "import"},
        "storage": {"engine": "fake-engine", "inspector": "fake-inspector"},
        "network": {"switch": "fake-switch", "gateway": "fake-gateway", "dhcp": "fake-dhcp"},
        "security": {"firewall": "fake-firewall", "bootstrap_token_file": token_file},
    }
    clock = SetClock()
    async with Harness(folder, plugins=(plugin,), clock=clock, **settings) as harness:
        for name, bootstrap in SERVICES.items():
            await harness.start(name, bootstrap)
        bus = MemoryBus(harness.broker, "gateway")
        gateway = Gateway(bus, MemoryStore(bus, "gateway"), clock, limits, dialer=Dialer("n1"))
        listener = socket.create_server(("127.0.0.1", 0))
        address, stop = f"127.0.0.1:{listener.getsockname()[1]}", asyncio.Event()
        serving = asyncio.create_task(serve(gateway, GatewaySettings(), listener, stop))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            base_url=f"http://{address}", headers=headers, timeout=60
        ) as http:
            async with asyncio.timeout(60):
                while (await http.get("/v1/nodes")).status_code != 200:  # noqa: ASYNC110 - it is another side
                    await asyncio.sleep(0.05)
            yield Node(harness, gateway, http, address)
        stop.set()
        await serving
        await bus.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that was just started."""
    async with running_node(tmp_path) as made:
        yield made


@pytest.fixture
def make_node() -> Any:
    """Nodes with bounds of one's own."""
    return running_node
