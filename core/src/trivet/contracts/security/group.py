"""SecurityGroup: a named set of firewall rules that ports can stand behind.

Rules allow or deny, lower `priority` first; what no rule names is denied inwards and allowed
outwards. Answers to what was allowed always pass (stateful).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status


class Direction(StrEnum):
    """Seen from the guest."""

    IN = "in"
    OUT = "out"


class Protocol(StrEnum):
    """What a rule speaks of; `icmp` is ICMP or ICMPv6, whichever the packet is."""

    ANY = "any"
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Action(StrEnum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"


def _cidr(text: str) -> str:
    return str(ip_network(text))


def _ports(text: str) -> str:
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= 65535:
        raise ValueError("a port, or first-last, of 1-65535")
    return text


Ports = Annotated[str, Field(pattern=r"^\d{1,5}(-\d{1,5})?$"), AfterValidator(_ports)]
Cidr = Annotated[str, Field(max_length=64), AfterValidator(_cidr)]


class Rule(Model):
    """One rule. `ports` are the destination's; `remote` the other side's addresses."""

    direction: Direction = Direction.IN
    protocol: Protocol = Protocol.ANY
    ports: tuple[Ports, ...] = Field(default=(), max_length=64)
    remote: Cidr | None = None
    action: Action = Action.ALLOW
    priority: int = Field(default=1000, ge=1, le=65535)
    comment: str = Field(default="", max_length=200, pattern=r"^[ !#-\[\]-~]*$")

    @model_validator(mode="after")
    def _coherent(self) -> Rule:
        if self.ports and self.protocol not in (Protocol.TCP, Protocol.UDP):
            raise ValueError("ports go with tcp or udp")
        return self


class SecurityGroupSpec(Model):
    """The rules, in any order: `priority` decides, and among equals deny goes first."""

    rules: tuple[Rule, ...] = Field(default=(), max_length=10000)


class SecurityGroupStatus(Status):
    """How many ports stand behind it, on all nodes."""

    ports: int = 0


class SecurityGroup(Resource[SecurityGroupSpec, SecurityGroupStatus]):
    """A named set of firewall rules."""

    kind: str = "SecurityGroup"


SECURITY_GROUP = Kind(
    SecurityGroup,
    "security-group",
    "security-groups",
    "security",
    Scope.PROJECT,
    "A named set of firewall rules",
)
