"""Which addresses are behind a group."""

from __future__ import annotations

from datetime import UTC, datetime

from trivet.contracts.model import ResourceId
from trivet.contracts.network.endpoints.node_members import GroupName
from trivet.contracts.network.port import Port, PortSpec, PortStatus
from trivet.contracts.resource import Meta
from trivet.network.domain.members import members

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def port(
    name: str, *groups: str, project: str = "p", gone: bool = False, address: str = ""
) -> Port:
    meta = Meta(
        id=ResourceId(name), name=name, project=project, created_at=NOW,
        deleting_at=NOW if gone else None,
    )  # fmt: skip
    spec = PortSpec(network="lan", security_groups=groups)
    return Port(meta=meta, spec=spec, status=PortStatus(addresses=(address,) if address else ()))


def test_members() -> None:
    ports = (
        port("a", "web", address="10.0.0.10"),
        port("b", "web", "db", address="10.0.0.9"),
        port("c", "web", address="10.0.0.3", gone=True),
        port("d", "web", address="10.0.0.4", project="q"),
        port("e", "web"),
        port("f", "db", address="fd00::1"),
    )
    asked = [GroupName(project="p", name=name) for name in ("web", "db", "none")]
    found = members(ports, asked)
    assert [(f.project, f.name, f.addresses) for f in found] == [
        ("p", "group:web", ("10.0.0.9", "10.0.0.10")),
        ("p", "group:db", ("10.0.0.9", "fd00::1")),
        ("p", "group:none", ()),
    ]
