"""A node whose engines are fakes: real NATS with fsync, real services as processes, no root.

What is measured on it is the control plane alone. The fakes are found as any plugin is, by an
entry point, in a distribution that exists only in the folder of the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.measure import cpu_seconds, say
from trivet.client import Client
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_store import NatsStore
from trivet.testing.nats import NatsServer

SERVICES = ("security", "storage", "network", "compute", "gateway")
READY_WITHIN_S = 120.0
SETTINGS = """\
node = "n1"
state_dir = {state}
run_dir = {run}
prefix = "ubn"
log_level = "WARNING"

[bus]
urls = [{bus_url}]
keys_dir = {keys}

[compute]
hypervisor = "fake"
import_dir = {state}

[storage]
engine = "fake-engine"
inspector = "fake-inspector"

[network]
switch = "fake-switch"
gateway = "fake-gateway"
dhcp = "fake-dhcp"

[security]
firewall = "fake-firewall"
bootstrap_token_file = {token}

[gateway]
host = "127.0.0.1"
port = {api_port}
rate_per_s = 1000000
rate_burst = 1000000

[plugins.fake]
cpus = {cpus}
memory_mib = 4194304

[plugins.fake-engine]
pool_bytes = 1000000000000000
"""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FakeNode:
    """One node under `folder`; `url` and `token` reach it."""

    def __init__(self, folder: Path, server: NatsServer, cpus: int) -> None:
        self.folder = folder
        self.server = server
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = folder / "trivet.toml"
        values = {
            "state": folder / "state",
            "run": folder / "run",
            "bus_url": server.url,
            "keys": server.keys_dir,
            "token": folder / "state/token",
        }
        quoted = {key: json.dumps(str(value)) for key, value in values.items()}
        (folder / "state").mkdir()
        self._settings.write_text(SETTINGS.format(**quoted, api_port=self.port, cpus=cpus))
        _entry_point(folder / "plugin")

    @property
    def token(self) -> str:
        """The first administrator's token."""
        return (self.folder / "state/token").read_text().strip()

    def client(self) -> Client:
        """A client of the node's API."""
        return Client(self.url, self.token)

    def start(self, service: str) -> None:
        """Start a service's process."""
        env = {
            **os.environ,
            "TRIVET_SETTINGS": str(self._settings),
            "PYTHONPATH": str(self.folder / "plugin"),
        }
        # As where it is installed: from code that was compiled before.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        with (self.folder / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                (sys.executable, "-m", f"trivet.{service}"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
            )

    def kill(self, service: str) -> None:
        """kill -9."""
        process = self.processes.pop(service)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all in good order, or else."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in self.processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cpu_seconds(self) -> dict[str, float]:
        """The processor time that each process of the node has used so far."""
        pids = {name: process.pid for name, process in self.processes.items()}
        return {name: cpu_seconds(pid) for name, pid in {**pids, "nats": self.server.pid}.items()}

    async def quiet(self, service: str) -> None:
        """Wait until a service has little to do (under half a processor for a second), for at
        most a minute: with very many resources its looks at all of them never end."""
        for _ in range(60):
            before = self.cpu_seconds()[service]
            await asyncio.sleep(1)
            if self.cpu_seconds()[service] - before < 0.5:
                return

    async def ready(self) -> None:
        """Wait until all answer."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not await asyncio.to_thread(self._healthy):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the node is not ready; its logs: {self.folder}")
            for service, process in self.processes.items():
                if process.poll() is not None:
                    said = (self.folder / f"{service}.log").read_text()[-2000:]
                    raise RuntimeError(f"{service} ended: {said}")
            await asyncio.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/health", timeout=5) as reply:
                if json.load(reply)["status"] != "ok":
                    return False
            asked = {"Authorization": f"Bearer {self.token}"}
            whoami = urllib.request.Request(f"{self.url}/v1/whoami", headers=asked)
            with urllib.request.urlopen(whoami, timeout=5):
                return True
        except (OSError, ValueError):
            return False

    @asynccontextmanager
    async def bucket(self, service: str) -> AsyncIterator[NatsStore]:
        """A service's bucket, opened as that service."""
        bus = await NatsBus.connect(
            [self.server.url],
            service=service,
            name="bench",
            seed_file=self.server.seed_file(service),
        )
        try:
            yield await NatsStore.open(bus, service)
        finally:
            await bus.close()


def _entry_point(folder: Path) -> None:
    """A distribution in `folder` whose plugin is all the fakes."""
    about = folder / "trivet_bench-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: trivet-bench\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[trivet]\nfakes = trivet.testing.fakes.plugin\n")


@asynccontextmanager
async def fake_node(cpus: int = 128) -> AsyncIterator[FakeNode]:
    """A node that is ready, and is taken away in the end."""
    folder = Path(tempfile.mkdtemp(prefix="trivet-bench-"))
    server = NatsServer(folder)
    node = FakeNode(folder, server, cpus)
    kept = False
    try:
        await server.start()
        for service in SERVICES:
            node.start(service)
        await node.ready()
        say("a node with fake engines is ready")
        yield node
    except BaseException:
        kept = True
        say(f"failed; the logs are in {folder}")
        raise
    finally:
        await asyncio.to_thread(node.stop)
        await server.stop()
        if not kept:
            shutil.rmtree(folder)
