"""A real NATS server for tests: started in a folder of its own, killed and started again at will.

The configuration is the product's own (`runtime.nats_config`), so the permissions and the
durability that tests see are the ones that ship.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_config import ADMIN, IDENTITIES, ServerPlan, server_config
from trivet.runtime.nats_link import Link
from trivet.runtime.nats_provision import provision
from trivet.runtime.nkeys import make_key

READY_TIMEOUT_S = 20.0


def server_binary() -> str:
    """The nats-server of this environment."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError("nats-server is neither beside python nor on PATH")
    return found


class NatsServer:
    """One server on loopback. The port and the data stay over `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys_dir = folder / "keys"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        plan = ServerPlan(
            name="test",
            listen=f"127.0.0.1:{self.port}",
            store_dir=folder / "data",
            public_keys={i: make_key(self.seed_file(i)) for i in IDENTITIES},
        )
        self._config = folder / "nats-server.conf"
        self._config.write_text(server_config(plan))

    def seed_file(self, identity: str) -> Path:
        """The key file of an identity."""
        return self.keys_dir / f"{identity}.nk"

    @property
    def pid(self) -> int:
        """The process of the running server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it and make the streams; returns when it is ready."""
        self._spawn()
        admin = await self.link(ADMIN)
        try:
            await provision(admin)
        finally:
            await admin.close()

    def _spawn(self) -> None:
        with (self.folder / "nats-server.log").open("ab") as log:
            command = [server_binary(), "-c", str(self._config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def link(self, identity: str) -> Link:
        """A connection as `identity`."""
        return await Link.connect(
            [self.url],
            service=identity,
            name=f"{identity}@test",
            seed_file=self.seed_file(identity),
            timeout_s=READY_TIMEOUT_S,
        )

    async def bus(self, service: str) -> NatsBus:
        """A bus as `service`."""
        return NatsBus(await self.link(service))

    async def kill(self) -> None:
        """End it as a power cut would end the process."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def restart(self) -> None:
        """Kill it and start it again with the same port and data."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End it."""
        await self.kill()

    def __repr__(self) -> str:
        return f"<NatsServer {self.url} {'up' if self._process else 'down'}>"
