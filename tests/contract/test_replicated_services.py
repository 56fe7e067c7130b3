"""Storage services of three nodes over the real engine: a guest's writes go on whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.functional.storage.conftest import PROJECT, until

from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.node import Node
from trivet.contracts.endpoint import CreateRequest, GetRequest, ListRequest, NewMeta, Page
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import NodeName
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.pool import PoolMember, PoolSpec
from trivet.contracts.storage.volume import Attachment, ReplicaState, Volume, VolumeSpec
from trivet.plugins.storage import engine as qemu_block
from trivet.plugins.storage import nbdkit, qsd
from trivet.plugins.storage.node_process import daemons
from trivet.runtime.call import Call
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.harness import Harness

pytestmark = pytest.mark.root
ALL = ("n1", "n2", "n3")
PIECE = 65536


class Cluster:
    """A harness for each node (folders and an address of its own), on one bus."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.nodes: dict[str, Harness] = {}
        for number, node in enumerate(ALL):
            names = {"engine": "qemu-block", "inspector": "fake-inspector", "look_s": 1.0}
            names |= {"address": f"127.0.0.{number + 1}", "rebuild_after_s": 60.0}
            plugins = (fakes, qemu_block)
            self.nodes[node] = Harness(folder / node, plugins=plugins, storage=names)
            self.nodes[node].broker = self.nodes["n1"].broker
        self.first = self.nodes["n1"]

    async def up(self) -> None:
        async def nobody(request: ListRequest, call: Call) -> Page[Node]:
            return Page[Node](items=())

        await self.first.fake(NODES.list, nobody)
        for node in ALL:
            (self._folder / node / "pool").mkdir(parents=True)
            await self.nodes[node].start("storage", bootstrap, node)
        members = tuple(PoolMember(node=n, path=str(self._folder / n / "pool")) for n in ALL)
        spec = PoolSpec(members=members, overcommit=1.0)
        await self.first.call(
            POOLS.create, CreateRequest[PoolSpec](meta=NewMeta(name="p"), spec=spec)
        )
        await self.first.call(POOLS.get, GetRequest(name="p", settle_s=20))
        meta, wanted = (
            NewMeta(name="v", project=PROJECT),
            VolumeSpec(size_gib=1, replicas=2, nodes=("n1", "n2")),
        )
        await self.first.call(VOLUMES.create, CreateRequest[VolumeSpec](meta=meta, spec=wanted))
        await self.show(20)

    async def show(self, settle_s: float = 0) -> Volume:
        request = GetRequest(project=PROJECT, name="v", settle_s=settle_s)
        found: Volume = await self.first.call(VOLUMES.get, request)
        return found

    async def attach(self, node: str) -> Attachment:
        request = AttachRequest(project=PROJECT, name="v", holder="vm/1", node=NodeName(node))
        return await self.first.call(ATTACH, request)

    async def write(self, node: str, offset: int, byte: int) -> None:
        """As a guest, which an error stops until its disk is there again."""
        while True:
            try:
                held = await self.attach(node)
                uri = f"nbd+unix:///{held.export}?socket={held.socket}"
                act = f"write -P {byte} {offset} {PIECE}"
                tried = await asyncio.create_subprocess_exec(
                    "qemu-io",
                    "-f",
                    "raw",
                    "-c",
                    act,
                    uri,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                said = (await tried.communicate())[0]
                if not tried.returncode and b"failed" not in said:
                    return
            except TrivetError:
                pass
            await asyncio.sleep(0.02)

    def kept(self, node: str, offset: int) -> bytes:
        (found,) = (self._folder / node / "pool").rglob("*.raw")
        with found.open("rb") as file:
            return os.pread(file.fileno(), PIECE, offset)

    def signal(self, program: str, node: str, number: signal.Signals) -> None:
        for daemon in daemons(program, self._folder / node):
            os.kill(daemon.pid, number)

    async def whole(self) -> None:
        async def good() -> bool:
            replicas = (await self.show()).status.replicas
            return all(r.state is ReplicaState.IN_SYNC and not r.suspect for r in replicas)

        await until("all replicas are in sync", good, 60)

    async def down(self) -> None:
        for node in ALL:
            self.signal(nbdkit.PROGRAM, node, signal.SIGCONT)
        await self.first.call(DETACH, DetachRequest(project=PROJECT, name="v", holder="vm/1"))
        for node in ALL:
            for program in (nbdkit.PROGRAM, qsd.PROGRAM):
                self.signal(program, node, signal.SIGKILL)
            await self.nodes[node].stop("storage", node)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    # A unix socket's path is short.
    with tempfile.TemporaryDirectory(prefix="rs") as folder:
        made = Cluster(Path(folder))
        await made.up()
        yield made
        await made.down()


async def test_writes_go_on_whatever_dies(cluster: Cluster) -> None:
    """A server is killed, hangs, the local one dies, the graph dies; at last all are alike."""
    harms = [
        (nbdkit.PROGRAM, "n2", signal.SIGKILL),
        (nbdkit.PROGRAM, "n2", signal.SIGSTOP),
        (nbdkit.PROGRAM, "n1", signal.SIGKILL),
        (qsd.PROGRAM, "n1", signal.SIGKILL),
    ]
    for number, (program, node, harm) in enumerate(harms):
        await cluster.write("n1", 2 * number * PIECE, 1)
        cluster.signal(program, node, harm)
        await cluster.write("n1", (2 * number + 1) * PIECE, number + 2)
        cluster.signal(program, node, signal.SIGCONT)
        await cluster.whole()
    for number in range(2 * len(harms)):
        assert cluster.kept("n1", number * PIECE) == cluster.kept("n2", number * PIECE)
    assert cluster.kept("n2", 3 * PIECE) == bytes([3]) * PIECE


async def test_a_new_holder_goes_on_where_the_dead_one_ended(cluster: Cluster) -> None:
    await cluster.write("n1", 0, 1)
    await cluster.nodes["n1"].crash("storage", "n1")
    for program in (nbdkit.PROGRAM, qsd.PROGRAM):
        cluster.signal(program, "n1", signal.SIGKILL)
    await cluster.write("n2", PIECE, 2)
    await cluster.nodes["n1"].start("storage", bootstrap, "n1")
    await cluster.whole()
    assert cluster.kept("n1", PIECE) == cluster.kept("n2", PIECE) == bytes([2]) * PIECE
