"""SecurityGroup: a named set of firewall rules that ports can stand behind.

Rules allow or deny, lower `priority` first; what no rule names is denied inwards and allowed
outwards. Answers to what was allowed always pass (stateful). Whom a rule speaks of is a network,
the ports behind a group (`group:NAME`, as they come and go), or an address set (`set:NAME`),
both of the same project. `evaluate.py` says what a list of rules decides.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_network
from re import fullmatch
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from trivet.contracts.model import NAME_PATTERN, Model
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


GROUP_PREFIX, SET_PREFIX = "group:", "set:"
LOGGED_RULES_MAX = 64


def _remote(text: str) -> str:
    kind, colon, name = text.partition(":")
    if f"{kind}{colon}" not in (GROUP_PREFIX, SET_PREFIX):
        return _cidr(text)
    if not fullmatch(NAME_PATTERN, name):
        raise ValueError("a network such as 10.0.0.0/24, group:NAME or set:NAME")
    return text


def _ports(text: str) -> str:
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= 65535:
        raise ValueError("a port, or first-last, of 1-65535")
    return text


Ports = Annotated[str, Field(pattern=r"^\d{1,5}(-\d{1,5})?$"), AfterValidator(_ports)]
Cidr = Annotated[str, Field(max_length=64), AfterValidator(_cidr)]
Remote = Annotated[str, Field(max_length=70), AfterValidator(_remote)]


class Rule(Model):
    """One rule. `ports` are the destination's; `remote` the other side's addresses: a network,
    `group:NAME` or `set:NAME`. `log`: packets that it decides on are told (a few a second)."""

    direction: Direction = Direction.IN
    protocol: Protocol = Protocol.ANY
    ports: tuple[Ports, ...] = Field(default=(), max_length=64)
    remote: Remote | None = None
    action: Action = Action.ALLOW
    priority: int = Field(default=1000, ge=1, le=65535)
    log: bool = False
    comment: str = Field(default="", max_length=200, pattern=r"^[ !#-\[\]-~]*$")

    @model_validator(mode="after")
    def _coherent(self) -> Rule:
        if self.ports and self.protocol not in (Protocol.TCP, Protocol.UDP):
            raise ValueError("ports go with tcp or udp")
        return self

    @property
    def named(self) -> str | None:
        """`remote` where it is the name of a group or an address set."""
        remote = self.remote or ""
        return remote if remote.startswith((GROUP_PREFIX, SET_PREFIX)) else None


class SecurityGroupSpec(Model):
    """The rules, in any order: `priority` decides, and among equals deny goes first."""

    rules: tuple[Rule, ...] = Field(default=(), max_length=10000)

    @model_validator(mode="after")
    def _not_all_logged(self) -> SecurityGroupSpec:
        if sum(rule.log for rule in self.rules) > LOGGED_RULES_MAX:
            raise ValueError(f"at most {LOGGED_RULES_MAX} rules with log")
        return self


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
    takes=lambda group: {"security_groups": 1},
)
