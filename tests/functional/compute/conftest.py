"""The compute service on the in-memory bus, among small stand-ins of its neighbours.

The neighbours keep to the contracts (names taken, owners, one holder a volume) and can be slow
or refuse; what they were asked is kept, so that a test can see that nothing was made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trivet.compute.bootstrap import bootstrap
from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.image import Image, ImageSourceSpec, ImageSpec
from trivet.contracts.compute.image_source import ImageFacts, Progress
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.driver import NoConfig, Probe
from trivet.contracts.endpoint import (
    CreateRequest,
    Crud,
    DeleteRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    NewMeta,
    Nothing,
    Page,
    Ref,
)
from trivet.contracts.errors import (
    NAME_TAKEN,
    NOT_FOUND,
    UNAVAILABLE,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import GIB
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.network import Network, NetworkSpec, NetworkStatus
from trivet.contracts.network.port import Port, PortStatus
from trivet.contracts.resource import Condition, Meta, Phase
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.group import (
    SecurityGroup,
    SecurityGroupSpec,
    SecurityGroupStatus,
)
from trivet.contracts.storage.codes import ATTACHED
from trivet.contracts.storage.endpoints.node_outlook import ENDPOINT as OUTLOOK
from trivet.contracts.storage.endpoints.node_outlook import NodeOutlook
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.snapshot import Snapshot, SnapshotStatus
from trivet.contracts.storage.volume import Attachment, Volume, VolumeStatus
from trivet.runtime.call import Call
from trivet.runtime.clock import new_id
from trivet.testing.fakes import hypervisor as fake_hypervisor
from trivet.testing.fakes.hypervisor_host import FakeHost, fake_host
from trivet.testing.harness import Harness
from trivet.testing.set_clock import SetClock

DEADLINE_S = 60.0


@dataclass
class Neighbour:
    """A collection of another service's resources, answered by the contract."""

    make: Callable[[CreateRequest[Any]], Any]
    refuse: TrivetError | None = None
    refuse_edit: TrivetError | None = None
    created: list[str] = field(default_factory=list)
    things: dict[str, Any] = field(default_factory=dict)

    def find(self, name: str) -> Any:
        if name not in self.things:
            raise Refused(NOT_FOUND, f"there is no {name}")
        return self.things[name]

    async def get(self, request: GetRequest, call: object) -> Any:
        return self.find(request.name)

    async def list(self, request: ListRequest, call: object) -> Any:
        owned = [
            t
            for t in self.things.values()
            if request.owner is None or (t.meta.owner and t.meta.owner.id == request.owner)
        ]
        return Page[Any](items=tuple(owned))

    async def create(self, request: CreateRequest[Any], call: object) -> Any:
        if self.refuse is not None:
            raise self.refuse
        if request.meta.name in self.things:
            raise Refused(NAME_TAKEN, f"{request.meta.name} is taken")
        self.created.append(request.meta.name)
        self.things[request.meta.name] = self.make(request)
        return self.things[request.meta.name]

    async def edit(self, request: EditRequest, call: object) -> Any:
        if self.refuse_edit is not None:
            raise self.refuse_edit
        found = self.find(request.name)
        spec = type(found.spec).model_validate({**dict(found.spec), **request.spec})
        self.things[request.name] = found.with_spec(spec)
        return self.things[request.name]

    async def delete(self, request: DeleteRequest, call: object) -> Any:
        found = self.find(request.name)
        attachment = getattr(found.status, "attachment", None)
        assert attachment is None, f"{request.name} is deleted under {attachment}"
        return self.things.pop(request.name)

    async def serve(self, harness: Harness, crud: Crud[Any]) -> None:
        for endpoint in crud.endpoints:
            if hasattr(self, endpoint.verb):
                await harness.fake(endpoint, getattr(self, endpoint.verb))


def _meta(kind: str, request: CreateRequest[Any]) -> Meta:
    return Meta(
        id=new_id(kind),
        name=request.meta.name,
        project=request.meta.project,
        created_at=datetime.now(UTC),
        owner=request.owner,
    )


@dataclass
class World:
    """Compute and its neighbours."""

    harness: Harness
    folder: Path
    volumes: Neighbour
    ports: Neighbour
    networks: Neighbour
    groups: Neighbour
    snapshots: Neighbour
    volume_phase: Phase = Phase.READY
    port_phase: Phase = Phase.READY
    snapshot_phase: Phase = Phase.READY
    attach_error: TrivetError | None = None
    attach_hangs: asyncio.Event | None = None
    attaches: int = 0
    starved: str = ""
    epochs: dict[str, int] = field(default_factory=dict)
    served_gib: dict[str, int] = field(default_factory=dict)

    @property
    def source(self) -> type[FakeSource]:
        return FakeSource

    @property
    def writer(self) -> type[FakeWriter]:
        return FakeWriter

    async def start(self, node: str = "n1") -> None:
        await self.harness.start("compute", bootstrap, node)

    async def crash(self, node: str = "n1") -> None:
        await self.harness.crash("compute", node)

    def host(self, node: str = "n1") -> FakeHost:
        """What runs on a node; the harness gives all nodes one state folder."""
        return fake_host(self.harness.settings.state_dir / "compute" / "fake")

    async def attach(self, request: Any, call: object) -> Attachment:
        self.attaches += 1
        if self.attach_hangs is not None:
            await self.attach_hangs.wait()
        if self.attach_error is not None:
            raise self.attach_error
        volume: Volume = self.volumes.find(request.name)
        held = volume.status.attachment
        if held is not None and (held.holder, held.node) != (request.holder, request.node):
            raise Refused(ATTACHED, f"{request.name} is held by {held.holder} on {held.node}")
        if held is None:
            epoch = self.epochs[request.name] = self.epochs.get(request.name, 0) + 1
            held = Attachment(
                holder=request.holder,
                node=request.node,
                epoch=epoch,
                socket=f"/run/{request.name}.sock",
                export=f"{volume.meta.id}.e{epoch}",
            )
            self.volumes.things[request.name] = volume.with_status(attachment=held)
        # It is served with the size that it has by now.
        size_gib = self.served_gib.get(request.name, volume.spec.size_gib)
        now = {"starved": self.starved, "size_bytes": size_gib * GIB}
        return held.model_copy(update=now)

    async def detach(self, request: Any, call: object) -> Nothing:
        volume: Volume = self.volumes.find(request.name)
        held = volume.status.attachment
        if held is not None and held.holder == request.holder:
            for domain in self.host().domains.values():
                exports = {d.export for d in domain.running.disks} if domain.running else set()
                assert held.export not in exports, "a disk is detached under a running guest"
            self.volumes.things[request.name] = volume.with_status(attachment=None)
        return Nothing()

    def make_volume(self, request: CreateRequest[Any]) -> Volume:
        status = VolumeStatus(phase=self.volume_phase)
        if self.volume_phase is Phase.FAILED:
            told = Condition(type="Ready", status="false", reason="Full", message="pool is full")
            status = status.with_condition(told, datetime.now(UTC))
        return Volume(meta=_meta("volume", request), spec=request.spec, status=status)

    def make_snapshot(self, request: CreateRequest[Any]) -> Snapshot:
        for name in request.spec.volumes:
            self.volumes.find(name)
        status = SnapshotStatus(phase=self.snapshot_phase)
        return Snapshot(meta=_meta("snapshot", request), spec=request.spec, status=status)

    def make_port(self, request: CreateRequest[Any]) -> Port:
        number = len(self.ports.created)
        status = PortStatus(
            phase=self.port_phase,
            mac=f"02:00:00:00:00:{number:02x}",
            addresses=(f"10.0.0.{number + 1}",),
            node=request.spec.node,
            device=f"tvp{number}",
            mtu=1450,
        )
        return Port(meta=_meta("port", request), spec=request.spec, status=status)

    def settle(self, neighbour: Neighbour) -> None:
        """All things of a neighbour become ready."""
        for name, thing in neighbour.things.items():
            neighbour.things[name] = thing.with_status(phase=Phase.READY)

    # --- calls ------------------------------------------------------------------------------

    async def create(self, name: str = "web", **spec: Any) -> Vm:
        wanted = {
            "memory_mib": 128,
            "disks": [{"size_gib": 1}],
            "nics": [{"network": "lan"}],
            **spec,
        }
        request = CreateRequest[VmSpec](
            meta=NewMeta(name=name, project="p"), spec=VmSpec.model_validate(wanted)
        )
        vm: Vm = await self.harness.call(VMS.create, request)
        return vm

    async def vm(self, name: str = "web") -> Vm:
        vm: Vm = await self.harness.call(VMS.get, GetRequest(project="p", name=name))
        return vm

    async def node(self, name: str = "n1") -> Node:
        node: Node = await self.harness.call(NODES.get, GetRequest(name=name))
        return node

    async def edit(self, name: str = "web", **spec: Any) -> Vm:
        vm: Vm = await self.harness.call(VMS.edit, EditRequest(project="p", name=name, spec=spec))
        return vm

    async def import_image(self, name: str = "tiny", **spec: Any) -> Image:
        source = ImageSourceSpec(file="tiny.qcow2")
        request = CreateRequest[ImageSpec](
            meta=NewMeta(name=name, project="p"), spec=ImageSpec(source=source, **spec)
        )
        image: Image = await self.harness.call(IMAGES.create, request)
        return image

    async def image(self, name: str = "tiny") -> Image:
        image: Image = await self.harness.call(IMAGES.get, GetRequest(project="p", name=name))
        return image

    async def until(self, question: Callable[[Vm], bool], name: str = "web") -> Vm:
        """The VM once `question` holds of it."""
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            vm = await self.vm(name)
            if question(vm):
                return vm
            if asyncio.get_running_loop().time() > deadline:
                pytest.fail(f"{vm} {vm.status.model_dump_json(indent=1)}")
            await asyncio.sleep(0.01)

    async def eventually(self, question: Callable[[], Any]) -> None:
        """Wait until `question` (awaited if it can be) holds."""
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            answer = question()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)

    async def gone(self, name: str = "web") -> bool:
        try:
            await self.vm(name)
        except Refused as error:
            return error.code is NOT_FOUND
        return False


class FakeSource:
    """An image source whose one file is on the nodes that `have_file` names."""

    name: ClassVar[str] = "fake_source"
    Config: ClassVar[type] = NoConfig
    have_file: ClassVar[set[str]] = {"n1"}
    fetches: ClassVar[int] = 0
    forgotten: ClassVar[list[str]] = []
    error: ClassVar[TrivetError | None] = None

    def __init__(self, context: Any, config: Any) -> None:
        self.node = context.node

    @classmethod
    async def probe(cls) -> Probe:
        return Probe(usable=True, reason="pretends")

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def accepts(self, source: ImageSourceSpec) -> bool:
        return source.file is not None

    async def fetch(self, source: ImageSourceSpec, into: Path, progress: Progress) -> Path:
        type(self).fetches += 1
        if self.error is not None:
            raise self.error
        if self.node not in self.have_file:
            raise Refused(NOT_FOUND, f"{source.file} is not in the import folder")
        (into / "part").write_text("fetched")
        return into / "part"

    async def forget(self, source: ImageSourceSpec) -> None:
        self.forgotten.append(source.file or "")


class FakeWriter:
    """An image writer that notes what it wrote; hangs while `hold` is set."""

    name: ClassVar[str] = "fake_writer"
    Config: ClassVar[type] = NoConfig
    hold: ClassVar[asyncio.Event | None] = None
    written: ClassVar[list[str]] = []
    size_bytes: ClassVar[int] = (1 << 30) + 1

    def __init__(self, context: Any, config: Any) -> None:
        pass

    @classmethod
    async def probe(cls) -> Probe:
        return Probe(usable=True, reason="pretends")

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def inspect(self, path: Path) -> ImageFacts:
        return ImageFacts(format="qcow2", virtual_size_bytes=self.size_bytes, sha256="a" * 64)

    async def write(
        self, path: Path, format_: str, socket: str, export: str, progress: Progress
    ) -> None:
        if self.hold is not None:
            await self.hold.wait()
        progress(1, 1)
        self.written.append(export)


class FakePlugins:
    """The plugin of this folder's tests."""

    @staticmethod
    @hookimpl
    def trivet_image_sources() -> list[type]:
        return [FakeSource]

    @staticmethod
    @hookimpl
    def trivet_image_writers() -> list[type]:
        return [FakeWriter]


@pytest.fixture
def hypervisor() -> dict[str, Any]:
    """The configuration of the pretended hypervisor."""
    return {}


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hypervisor: dict[str, Any]
) -> AsyncIterator[World]:
    monkeypatch.setattr(FakeSource, "have_file", {"n1"})
    monkeypatch.setattr(FakeSource, "fetches", 0)
    monkeypatch.setattr(FakeSource, "forgotten", [])
    monkeypatch.setattr(FakeSource, "error", None)
    monkeypatch.setattr(FakeWriter, "hold", None)
    monkeypatch.setattr(FakeWriter, "written", [])
    monkeypatch.setattr(FakeWriter, "size_bytes", (1 << 30) + 1)
    harness = Harness(
        tmp_path,
        clock=SetClock(),
        plugins=(fake_hypervisor, FakePlugins),
        configs={"fake": hypervisor},
        compute={"hypervisor": "fake", "look_s": 0.5, "node_silent_s": 1.0},
    )
    async with harness:
        world = World(
            harness,
            tmp_path,
            volumes=Neighbour(lambda r: world.make_volume(r)),
            ports=Neighbour(lambda r: world.make_port(r)),
            networks=Neighbour(lambda r: None),
            groups=Neighbour(lambda r: None),
            snapshots=Neighbour(lambda r: world.make_snapshot(r)),
        )
        now = datetime.now(UTC)
        world.networks.things["lan"] = Network(
            meta=Meta(id=new_id("network"), name="lan", project="p", created_at=now),
            spec=NetworkSpec(subnets=("10.0.0.0/24",)),
            status=NetworkStatus(phase=Phase.READY),
        )
        world.groups.things["default"] = SecurityGroup(
            meta=Meta(id=new_id("security-group"), name="default", project="p", created_at=now),
            spec=SecurityGroupSpec(),
            status=SecurityGroupStatus(phase=Phase.READY),
        )
        await world.volumes.serve(harness, VOLUMES)
        await world.ports.serve(harness, PORTS)
        await world.networks.serve(harness, NETWORKS)
        await world.groups.serve(harness, GROUPS)
        await world.snapshots.serve(harness, SNAPSHOTS)
        await harness.fake(ATTACH, world.attach)
        await harness.fake(OUTLOOK, nothing_at_stake)
        await harness.fake(DETACH, world.detach)
        await world.start()
        yield world


async def nothing_at_stake(request: Ref, call: Call) -> NodeOutlook:
    return NodeOutlook()


def unavailable(detail: str) -> Retry:
    return Retry(UNAVAILABLE, detail, retry_after_s=0.05)
