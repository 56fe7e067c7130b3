"""Who asks for metadata gets its own VM's, by network and address, and nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from tests.functional.network.conftest import World, until

from trivet.contracts.compute.endpoints.vm_instance_data import (
    ENDPOINT,
    InstanceData,
    InstanceDataRequest,
)
from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import NOT_FOUND, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.network.network import NETWORK
from trivet.contracts.network.port import PORT
from trivet.contracts.resource import OwnerRef
from trivet.network.domain import metadata_http as http
from trivet.network.node.metadata import MetadataService
from trivet.runtime.call import Call
from trivet.testing.fakes.gateway import FakeGateway
from trivet.testing.fakes.world import FaultConfig


class Compute:
    """VMs by id; away if told so."""

    def __init__(self) -> None:
        self.away = False
        self.vms = {"vm-1": "a", "vm-2": "b"}

    async def answer(self, request: InstanceDataRequest, call: Call) -> InstanceData:
        if self.away:
            raise Retry(UNAVAILABLE, "compute is away")
        if self.vms.get(request.id) != request.name:
            raise Refused(NOT_FOUND, "no such VM")
        return InstanceData(id=request.id, name=request.name, project="p")


@pytest.fixture
async def compute(world: World) -> Compute:
    compute = Compute()
    await world.harness.fake(ENDPOINT, compute.answer)
    return compute


@pytest.fixture
def metadata(world: World) -> MetadataService:
    assert world.service is not None
    runtime = world.service.runtime
    folder = world.harness.folder
    return MetadataService(
        runtime,
        FakeGateway(DriverContext("n1", folder, folder), FaultConfig()),
        world.service.collection(NETWORK),
        world.service.collection(PORT),
    )


def owner(number: int, name: str) -> OwnerRef:
    return OwnerRef(kind="vm", id=ResourceId(f"vm-{number}"), project="p", name=name)


def get(path: str, **headers: str) -> bytes:
    lines = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


ID = "/latest/meta-data/instance-id"


async def test_each_gets_its_own(world: World, compute: Compute, metadata: MetadataService) -> None:
    lan = await world.network()
    other = await world.network("other", subnets=("10.10.0.0/24",))
    await world.port("a-0", owner=owner(1, "a"))
    await world.port("b-0", owner=owner(2, "b"))
    await world.port("nobodys")
    for source, id_ in (("10.9.0.2", b"vm-1"), ("10.9.0.3", b"vm-2")):
        assert (await metadata.answer(lan.meta.id, source, get(ID))).endswith(id_)
    for network, source in (
        (lan.meta.id, "10.9.0.4"),
        (lan.meta.id, "10.9.0.99"),
        (other.meta.id, "10.9.0.2"),
        (ResourceId("network-ff"), "10.9.0.2"),
    ):
        assert b" 404 " in await metadata.answer(network, source, get(ID))


async def test_a_namesake_of_a_deleted_vm_is_not_told_of(
    world: World, compute: Compute, metadata: MetadataService
) -> None:
    lan = await world.network()
    await world.port("a-0", owner=owner(7, "a"))
    assert b" 404 " in await metadata.answer(lan.meta.id, "10.9.0.2", get(ID))


async def test_tokens_and_proxies_and_methods(
    world: World, compute: Compute, metadata: MetadataService
) -> None:
    lan = await world.network()
    await world.port("a-0", owner=owner(1, "a"))
    await world.port("b-0", owner=owner(2, "b"))

    async def ask(request: bytes, source: str = "10.9.0.2") -> tuple[int, bytes]:
        told = await metadata.answer(lan.meta.id, source, request)
        return int(told.split()[1]), told.partition(b"\r\n\r\n")[2]

    put = b"PUT /latest/api/token HTTP/1.1\r\n%s: 60\r\n\r\n" % http.TTL_HEADER.encode()
    status, token = await ask(put)
    assert status == 200
    good = get(ID, **{http.TOKEN_HEADER: token.decode()})
    assert await ask(good) == (200, b"vm-1")
    assert (await ask(good, "10.9.0.3"))[0] == 401
    assert (await ask(get(ID, X_Forwarded_For="1.2.3.4")))[0] == 403
    assert (await ask(b"PUT /latest/api/token HTTP/1.1\r\n\r\n"))[0] == 400
    assert (await ask(b"PUT /latest HTTP/1.1\r\n\r\n"))[0] == 405
    assert (await ask(b"DELETE /latest HTTP/1.1\r\n\r\n"))[0] == 405
    assert await ask(get(ID).replace(b"GET", b"HEAD")) == (200, b"")
    assert (await ask(b"nonsense\r\n\r\n"))[0] == 400
    compute.away = True
    assert (await ask(get(ID)))[0] == 503


async def test_who_asks_too_much_waits(
    world: World, compute: Compute, metadata: MetadataService
) -> None:
    lan = await world.network()
    await world.port("a-0", owner=owner(1, "a"))
    await world.port("b-0", owner=owner(2, "b"))
    told = [await metadata.answer(lan.meta.id, "10.9.0.2", get(ID)) for _ in range(500)]
    assert any(b" 429 " in t for t in told)
    assert b" 200 " in await metadata.answer(lan.meta.id, "10.9.0.3", get(ID))


async def test_there_is_a_listener_while_the_network_is_here(world: World) -> None:
    lan = await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    before = world.gateway().metadata[lan.meta.id]

    async def status() -> bytes:
        port = world.gateway().metadata[lan.meta.id]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/"))
        told = await reader.read()
        writer.close()
        return told.split()[1]

    assert await status() == b"404"
    world.gateway().legs.clear()
    world.gateway().told.set()
    await until(lambda: world.gateway().metadata[lan.meta.id] != before)
    assert await status() == b"404"
    await world.harness.crash("network")
    await world.start()
    await world.edit_port("a", hostname="again")
    await world.get_port("a", settle_s=5)
    assert await status() == b"404"
