"""The security service among stand-ins: a fake firewall, and a network that answers.

Tests are given the service's own `bootstrap`, since nothing here may know a service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trivet.contracts.access import Caller
from trivet.contracts.endpoint import (
    SERVICES,
    ListRequest,
    NewMeta,
    Nothing,
    Page,
    declared,
)
from trivet.contracts.errors import (
    Code,
    TrivetError,
)
from trivet.contracts.event import CloudEvent, ResourceFacts
from trivet.contracts.model import ResourceId
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.network.endpoints.node_bindings import BindingsResponse
from trivet.contracts.network.endpoints.node_members import ENDPOINT as MEMBERS
from trivet.contracts.network.endpoints.node_members import (
    GroupName,
    MembersRequest,
    MembersResponse,
)
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.port import PORT, Port, PortSpec, PortStatus
from trivet.contracts.resource import Meta, Scope
from trivet.contracts.security.endpoints.node_protect import ENDPOINT as PROTECT
from trivet.contracts.security.endpoints.node_protect import ProtectRequest, ProtectResponse
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.endpoints.token_create import ENDPOINT as TOKEN_CREATE
from trivet.contracts.security.endpoints.token_create import TokenCreated
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.security.endpoints.token_verify import VerifyRequest
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.firewall import AddressList, Binding
from trivet.contracts.security.identity import RoleBinding, TokenSpec, UserSpec
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.testing.fakes.firewall import FakeFirewall
from trivet.testing.harness import Bootstrap, Harness

DEADLINE_S = 60.0
SECRET = "s" * 43
FIRST = f"trv_0123456789abcdef_{SECRET}"


class World:
    """The service, its firewall, and the network that tells it the node's ports."""

    def __init__(self, harness: Harness, token_file: Path, bootstrap: Bootstrap) -> None:
        self.harness = harness
        self.token_file = token_file
        self._bootstrap = bootstrap
        self.firewalls: list[FakeFirewall] = []
        self.bindings: tuple[Binding, ...] = ()
        self.port_node = "n1"

    @property
    def firewall(self) -> FakeFirewall:
        """The one that the last start opened."""
        return self.firewalls[-1]

    async def network(self) -> None:
        """Ports stand behind groups as `bindings` say."""

        async def bindings(request: Nothing, call: Call) -> BindingsResponse:
            return BindingsResponse(bindings=self.bindings)

        async def ports(request: ListRequest, call: Call) -> Page[Port]:
            return Page[Port](items=tuple(port_of(b, self.port_node) for b in self.bindings))

        async def nothing(request: ListRequest, call: Call) -> Page[Any]:
            return Page(items=())

        async def members(request: MembersRequest, call: Call) -> MembersResponse:
            return MembersResponse(lists=tuple(self._members(group) for group in request.groups))

        await self.harness.fake(BINDINGS, bindings, node="n1")
        await self.harness.fake(MEMBERS, members, node="n1")
        await self.harness.fake(MEMBERS, members, node="n2")
        await self.harness.fake(PORTS.list, ports)
        foreign = [e for name in SERVICES if name != "security" for e in declared(name)]
        for endpoint in foreign:
            in_projects = endpoint.kind is not None and endpoint.kind.scope is Scope.PROJECT
            if endpoint.verb == "list" and in_projects and endpoint.noun != "port":
                await self.harness.fake(endpoint, nothing)

    def _members(self, group: GroupName) -> AddressList:
        behind = [b for b in self.bindings if group.name in b.security_groups]
        addresses = sorted({address for b in behind for address in b.addresses})
        return AddressList(
            project=group.project, name=f"group:{group.name}", addresses=tuple(addresses)
        )

    async def port_event(self) -> None:
        """Tell what the network service tells when a port was made."""
        facts = ResourceFacts(
            kind="Port", id=ResourceId("port-1"), name="p", project="default", generation=1,
            phase="ready",
        )  # fmt: skip
        now = datetime.now(UTC)
        event = CloudEvent(
            id=f"e{now}", source="t", type=PORT.event_type("created").type, subject="port-1",
            time=now, data=facts,
        )  # fmt: skip
        bus, subject = self.harness.client._bus, PORT.event_type("created").subject
        await bus.append_event(subject, event.model_dump_json().encode(), message_id=event.id)

    async def start(
        self, spoil: Callable[[Service], None] = lambda service: None, node: str = "n1"
    ) -> Service:
        """Start it, and keep hold of the firewall that it opens."""

        async def opened(service: Service) -> None:
            runtime = service.runtime
            choose = runtime.plugins.choose

            async def keep(*args: Any) -> Any:
                driver = await choose(*args)
                if isinstance(driver, FakeFirewall):
                    self.firewalls.append(driver)
                return driver

            runtime.plugins.choose = keep  # type: ignore[method-assign, assignment]
            spoil(service)
            await self._bootstrap(service)

        return await self.harness.start("security", opened, node)

    async def who(self, bearer: str) -> Caller | None:
        """Who the token proves to be."""
        return (await self.harness.call(VERIFY, VerifyRequest(bearer=bearer))).caller

    async def first_admin(self) -> Caller:
        """The administrator of the token file, once the first start has made it."""
        found: list[Caller] = []

        async def there() -> bool:
            caller = await self.who(self.token_file.read_text().strip())
            found.extend([caller] if caller else [])
            return bool(found)

        await until(there)
        return found[0]

    async def user(self, name: str, *roles: tuple[str, str], by: Caller | None = None) -> Any:
        """Make a user that holds (role, project) pairs."""
        bindings = tuple(RoleBinding(role=r, project=p) for r, p in roles)
        return await self.make(USERS.create, name, UserSpec(roles=bindings), by)

    async def token(
        self, user: str, by: Caller | None = None, expires_at: datetime | None = None
    ) -> TokenCreated:
        """Make the token `<user>-token`."""
        spec = TokenSpec(user=user, expires_at=expires_at)
        made: TokenCreated = await self.make(TOKEN_CREATE, f"{user}-token", spec, by)
        return made

    async def make(self, endpoint: Any, name: str, spec: Any, by: Caller | None = None) -> Any:
        """Create something that lives in the cluster."""
        request = endpoint.request(meta=NewMeta(name=name), spec=spec)
        return await self.harness.client.call(endpoint, request, caller=by)

    async def group(self, name: str, *rules: dict[str, Any]) -> Any:
        """Make a security group in the project `default`."""
        model = GROUPS.create.request
        return await self.harness.call(
            GROUPS.create,
            model.model_validate(
                {"meta": {"name": name, "project": "default"}, "spec": {"rules": rules}}
            ),
        )

    async def protect(self, *bindings: Binding) -> ProtectResponse:
        """Tell the firewall agent the ports of its node."""
        return await self.harness.call(PROTECT, ProtectRequest(bindings=bindings), node="n1")


async def until(holds: Callable[[], Any]) -> None:
    """Wait until it holds, or fail."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = holds()
            if seen if isinstance(seen, bool) else await seen:
                return
            await asyncio.sleep(0.01)


async def code_of(call: Any) -> Code:
    """The code with which the call is refused."""
    try:
        await call
    except TrivetError as error:
        return error.code
    raise AssertionError("it was not refused")


def binding(n: int, *groups: str, generation: int = 1) -> Binding:
    """A port of the project `default` on this node; `n` is 1-255."""
    return Binding(
        port=ResourceId(f"port-{n:016x}"),
        project="default",
        generation=generation,
        device=f"tvp{n:010x}",
        mac=f"02:00:00:00:00:{n:02x}",
        addresses=(f"10.9.0.{n}",),
        vni=100,
        security_groups=groups,
    )


def port_of(bound: Binding, node: str = "n1") -> Port:
    """The port as the network service lists it."""
    return Port(
        meta=Meta(
            id=bound.port, name=bound.port, project=bound.project, created_at=datetime.now(UTC)
        ),
        spec=PortSpec(network="lan", node=node, security_groups=bound.security_groups),
        status=PortStatus(),
    )
