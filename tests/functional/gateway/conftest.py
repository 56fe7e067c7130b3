"""A gateway on the in-memory bus, with tiny services behind it that keep VMs and tokens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from inspect import isawaitable
from typing import Any

import httpx
import pytest

from trivet.contracts.access import CLUSTER, Caller, Grant
from trivet.contracts.compute.vm import Vm, VmStatus
from trivet.contracts.endpoint import Endpoint, Page, declared
from trivet.contracts.errors import NAME_TAKEN, NOT_FOUND, REVISION, Refused
from trivet.contracts.event import CloudEvent, ResourceFacts, subject_of
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.security.audit import AuditEntry
from trivet.contracts.security.endpoints.audit_append import ENDPOINT as APPEND
from trivet.contracts.security.endpoints.audit_append import AppendResponse
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.security.endpoints.token_verify import VerifyResponse
from trivet.contracts.service_status import ServiceStatus, status_endpoint
from trivet.gateway.app import Gateway
from trivet.gateway.limits import Limits
from trivet.gateway.server import serve
from trivet.runtime.call import Call, EndpointHandler, answer
from trivet.runtime.clock import SystemClock, new_id
from trivet.runtime.settings import GatewaySettings
from trivet.runtime.streams import Dialer
from trivet.testing.memory_bus import MemoryBroker, MemoryBus
from trivet.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

WELL = ServiceStatus(node="n1", leader="n1", unsent_events=1, unsent_s=1, records=9, up_s=9)


def _caller(user: str, project: str, *permissions: str) -> Caller:
    grants = (Grant(project=project, permissions=permissions),) if permissions else ()
    return Caller(user=user, token_id=f"token-{user}", grants=grants)


@dataclass
class Cloud:
    """The services, as far as the gateway can tell."""

    bus: MemoryBus
    callers: dict[str, Caller] = field(
        default_factory=lambda: {
            "admin": _caller("admin", CLUSTER, "*"),
            "alice": _caller("alice", "red", "compute.*"),
            "nobody": _caller("nobody", "red"),
        }
    )
    vms: dict[tuple[str | None, str], Vm] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)
    calls: list[tuple[str, Any, Call]] = field(default_factory=list)
    verified: int = 0
    revision: int = 0
    audit_fails: bool = False
    settles: bool = True
    health: dict[str, ServiceStatus] = field(
        default_factory=lambda: dict.fromkeys(("compute", "network", "security"), WELL)
    )

    async def serve(self, endpoint: Endpoint[Any, Any], handler: EndpointHandler) -> None:
        async def noted(request: Any, call: Call) -> Any:
            if endpoint.op not in (VERIFY.op, APPEND.op, "service.status"):
                self.calls.append((endpoint.op, request, call))
            return await handler(request, call)

        subject = endpoint.subject()
        await self.bus.serve(subject, answer(endpoint, noted), queue=endpoint.service, bound=16)

    async def start(self) -> None:
        """Serve what the tests use, and answer everything else with an unexpected failure."""
        handlers: dict[str, EndpointHandler] = {
            VERIFY.op: self.verify,
            APPEND.op: self.append,
            "vm.create": self.create,
            "vm.get": self.get,
            "vm.list": self.list,
            "vm.edit": self.edit,
            "vm.delete": self.delete,
            "vm.start": self.get,
            "vm.stop": self.get,
            "vm.log": self.broken,
        }
        for endpoint in (*declared("compute"), *declared("security")):
            if endpoint.op in handlers:
                await self.serve(endpoint, handlers[endpoint.op])
        for service in self.health:
            await self.serve(status_endpoint(service), self.status(service))

    def status(self, service: str) -> EndpointHandler:
        async def status(request: Any, call: Call) -> ServiceStatus:
            return self.health[service]

        return status

    async def broken(self, request: Any, call: Call) -> Any:
        raise RuntimeError("secret internals")

    async def verify(self, request: Any, call: Call) -> VerifyResponse:
        self.verified += 1
        return VerifyResponse(caller=self.callers.get(request.bearer))

    async def append(self, request: Any, call: Call) -> AppendResponse:
        if self.audit_fails:
            raise RuntimeError("the disk is full")
        known = {entry.request_id for entry in self.audit}
        self.audit.extend(e for e in request.entries if e.request_id not in known)
        return AppendResponse(last_seq=len(self.audit))

    async def create(self, request: Any, call: Call) -> Vm:
        key = (request.meta.project, request.meta.name)
        if key in self.vms:
            raise Refused(NAME_TAKEN, f"vm {request.meta.name} is there already")
        meta = Meta(
            id=new_id("vm"),
            name=request.meta.name,
            project=request.meta.project,
            labels=request.meta.labels,
            created_at=NOW,
        )
        return self._put(Vm(meta=meta, spec=request.spec, status=VmStatus()))

    def _put(self, vm: Vm) -> Vm:
        self.revision += 1
        vm = vm.with_meta(revision=self.revision)
        self.vms[vm.meta.project, vm.meta.name] = vm
        return vm

    def _find(self, request: Any) -> Vm:
        vm = self.vms.get((request.project, request.name))
        if vm is None:
            raise Refused(NOT_FOUND, f"there is no vm {request.name}")
        return vm

    async def get(self, request: Any, call: Call) -> Vm:
        vm = self._find(request)
        if getattr(request, "settle_s", 0) and self.settles:
            if vm.meta.deleting_at:
                del self.vms[request.project, request.name]
                raise Refused(NOT_FOUND, f"there is no vm {request.name}")
            status = vm.with_status(phase=Phase.READY, power="running", observed_generation=9)
            vm = self._put(status)
        return vm

    async def list(self, request: Any, call: Call) -> Page[Vm]:
        found = [v for v in self.vms.values() if request.project in (None, v.meta.project)]
        return Page[Vm](items=tuple(found[: request.limit]))

    async def edit(self, request: Any, call: Call) -> Vm:
        vm = self._find(request)
        if request.revision not in (None, vm.meta.revision):
            raise Refused(REVISION, f"it has revision {vm.meta.revision}")
        spec = type(vm.spec).model_validate({**vm.spec.model_dump(), **request.spec})
        return self._put(vm.with_spec(spec))

    async def delete(self, request: Any, call: Call) -> Vm:
        vm = self._find(request)
        return self._put(vm.with_meta(deleting_at=NOW).with_status(phase="deleting"))

    async def emit(
        self, verb: str, *, project: str | None = "red", service: str = "compute", noun: str = "vm"
    ) -> int:
        """Append an event to the stream."""
        type_ = f"trivet.{service}.{noun}.{verb}.v1"
        n = await self.bus.last_event_seq()
        id_ = new_id(noun)
        facts = ResourceFacts(
            kind=noun, id=id_, name="web", project=project, generation=1, phase="ready"
        )
        event = CloudEvent(
            id=f"{service}/{n}/0",
            source=f"/{service}",
            type=type_,
            subject=id_,
            time=NOW,
            data=facts,
        )
        data = event.model_dump_json().encode()
        return await self.bus.append_event(subject_of(type_), data, message_id=event.id)


@dataclass
class Site:
    """A gateway that runs, the services behind it, and somebody to ask it."""

    gateway: Gateway
    cloud: Cloud
    bus: MemoryBus
    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, who: str | None = "admin", **more: Any) -> Any:
        """A request with the token of `who`."""
        headers = {**({"Authorization": f"Bearer {who}"} if who else {}), **more.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **more)


@asynccontextmanager
async def running_site(limits: Limits) -> AsyncIterator[Site]:
    broker = MemoryBroker()
    cloud = Cloud(MemoryBus(broker, "services"))
    await cloud.start()
    bus = MemoryBus(broker, "gateway")
    store = MemoryStore(bus, "gateway")
    gateway = Gateway(bus, store, SystemClock(), limits, dialer=Dialer("n1"))
    await gateway.start()
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield Site(gateway, cloud, bus, http)
    await gateway.stop()
    await bus.close()
    await cloud.bus.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """A gateway with its usual bounds."""
    async with running_site(Limits()) as site:
        yield site


@pytest.fixture
def until() -> Any:
    """Wait until a condition holds: `await until(lambda: ...)`; the condition may be awaited."""

    async def wait(condition: Any) -> None:
        async with asyncio.timeout(60):
            while True:
                holds = condition()
                if await holds if isawaitable(holds) else holds:
                    return
                await asyncio.sleep(0.005)

    return wait


@pytest.fixture
def make_site() -> Any:
    """Gateways with bounds of one's own."""
    return running_site


@asynccontextmanager
async def _served(**bounds: Any) -> AsyncIterator[tuple[Site, str, asyncio.Event]]:
    async with running_site(Limits(**bounds)) as site:
        listener = socket.create_server(("127.0.0.1", 0))
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(site.gateway, GatewaySettings(), listener, stop))
        try:
            yield site, f"127.0.0.1:{listener.getsockname()[1]}", stop
        finally:
            stop.set()
            async with asyncio.timeout(60):
                await serving


@pytest.fixture
def served() -> Any:
    """Gateways on a port of this machine: the site, its address, and what stops it."""
    return _served
