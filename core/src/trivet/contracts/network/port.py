"""Port: a place on a network where one card plugs in, with its MAC and its addresses.

`ready` means: plugged on its node, and the firewall of that node has its rules for it. Until
then the port passes nothing.
"""

from __future__ import annotations

from pydantic import Field

from trivet.contracts.event import EventType
from trivet.contracts.model import Model, Name
from trivet.contracts.resource import Kind, Resource, Scope, Status

MAC_PATTERN = r"^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$"


class Rate(Model):
    """A bound: bytes a second on average, and how many at once (None: what suits the rate)."""

    bytes_per_s: int = Field(ge=1_000, le=100_000_000_000)
    burst_bytes: int | None = Field(default=None, ge=16_384, le=1_000_000_000)


class PortQos(Model):
    """Bounds on a port's traffic: `ingress` to the guest, `egress` from it; None: no bound."""

    ingress: Rate | None = None
    egress: Rate | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return self.ingress is not None or self.egress is not None


class PortSpec(Model):
    """`addresses`: one for each subnet is chosen where none is asked for. `node` is where the
    port is wanted to be plugged; the compute service says so."""

    network: Name
    addresses: tuple[str, ...] = Field(default=(), max_length=2)
    mac: str | None = Field(default=None, pattern=MAC_PATTERN)
    security_groups: tuple[Name, ...] = Field(default=("default",), max_length=16)
    hostname: Name | None = None
    node: Name | None = None
    qos: PortQos = PortQos()


class PortStatus(Status):
    """`device` is the tap's name on `node`. `repairs`: how often it was found changed behind
    Trivet's back, and mended; the condition `Intact` says what was wrong last."""

    mac: str | None = None
    addresses: tuple[str, ...] = ()
    node: str | None = None
    device: str | None = None
    vni: int | None = None
    mtu: int | None = None
    network_id: str | None = None
    repairs: int = 0


class Port(Resource[PortSpec, PortStatus]):
    """A place on a network where a card plugs in."""

    kind: str = "Port"


PORT_PLUGGED = EventType("network", "port", "plugged")
PORT_UNPLUGGED = EventType("network", "port", "unplugged")
PORT_REPAIRED = EventType("network", "port", "repaired")


def _port_events(before: Port | None, after: Port | None) -> tuple[EventType, ...]:
    had = before.status.node if before else None
    has = after.status.node if after else None
    mended = before and after and after.status.repairs > before.status.repairs
    return (
        *((PORT_UNPLUGGED,) if had and had != has else ()),
        *((PORT_PLUGGED,) if has and had != has else ()),
        *((PORT_REPAIRED,) if mended else ()),
    )


PORT = Kind(
    Port,
    "port",
    "ports",
    "network",
    Scope.PROJECT,
    "A place on a network where a card plugs in",
    extra_events=_port_events,
    extra_event_types=(PORT_PLUGGED, PORT_UNPLUGGED, PORT_REPAIRED),
    takes=lambda port: {"ports": 1},
)
