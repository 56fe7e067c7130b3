"""What a list of rules decides, as a table."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trivet.contracts.model import ResourceId
from trivet.contracts.security.address_set import AddressSetSpec
from trivet.contracts.security.evaluate import NamedRule, Opening, decide, in_order
from trivet.contracts.security.firewall import link_local
from trivet.contracts.security.group import (
    LOGGED_RULES_MAX,
    Action,
    Direction,
    Protocol,
    Rule,
    SecurityGroupSpec,
)

WEB = Rule(protocol=Protocol.TCP, ports=("80", "8000-8080"), remote="10.0.0.0/8")
BAD = Rule(remote="set:bad", action=Action.DENY, priority=10)
FRIENDS = Rule(protocol=Protocol.UDP, remote="group:friends")
NO_SMTP = Rule(direction=Direction.OUT, protocol=Protocol.TCP, ports=("25",), action=Action.DENY)
RULES = in_order(NamedRule(ResourceId("g"), "p", "web", r) for r in (WEB, BAD, FRIENDS, NO_SMTP))
LISTS = {("p", "set:bad"): ("10.6.0.0/16",), ("p", "group:friends"): ("192.0.2.7", "fd00::7")}


def opening(
    protocol: Protocol, remote: str, port: int, direction: Direction = Direction.IN
) -> Opening:
    return Opening(direction, protocol, remote, port)


@pytest.mark.parametrize(
    ("sent", "action", "by"),
    [
        (opening(Protocol.TCP, "10.1.1.1", 80), Action.ALLOW, WEB),
        (opening(Protocol.TCP, "10.1.1.1", 8042), Action.ALLOW, WEB),
        (opening(Protocol.TCP, "10.1.1.1", 81), Action.DENY, None),
        (opening(Protocol.UDP, "10.1.1.1", 80), Action.DENY, None),
        (opening(Protocol.TCP, "11.1.1.1", 80), Action.DENY, None),
        (opening(Protocol.TCP, "10.6.1.1", 80), Action.DENY, BAD),
        (opening(Protocol.UDP, "192.0.2.7", 1), Action.ALLOW, FRIENDS),
        (opening(Protocol.UDP, "fd00::7", 1), Action.ALLOW, FRIENDS),
        (opening(Protocol.UDP, "192.0.2.8", 1), Action.DENY, None),
        (opening(Protocol.TCP, "10.1.1.1", 80, Direction.OUT), Action.ALLOW, None),
        (opening(Protocol.TCP, "10.1.1.1", 25, Direction.OUT), Action.DENY, NO_SMTP),
    ],
)
def test_decisions(sent: Opening, action: Action, by: Rule | None) -> None:
    decision = decide(RULES, sent, LISTS)
    assert (decision.action, decision.by.rule if decision.by else None) == (action, by)


def test_a_list_of_another_project_is_not_meant() -> None:
    theirs = {("q", name): addresses for (_, name), addresses in LISTS.items()}
    assert decide(RULES, opening(Protocol.UDP, "192.0.2.7", 1), theirs).by is None


@pytest.mark.parametrize("remote", ["group:Web", "group:", "set:a b", "sets:a", "10.0.0.1/24", "x"])
def test_what_is_no_remote(remote: str) -> None:
    with pytest.raises(ValidationError):
        Rule(remote=remote)


def test_not_every_rule_may_log() -> None:
    logging = tuple(Rule(log=True, priority=n + 1) for n in range(LOGGED_RULES_MAX))
    SecurityGroupSpec(rules=logging)
    with pytest.raises(ValidationError, match="with log"):
        SecurityGroupSpec(rules=(*logging, Rule(log=True)))


def test_a_rule_of_before_still_loads() -> None:
    old = Rule.model_validate_json(
        '{"direction":"in","protocol":"tcp","ports":["22"],"remote":null}'
    )
    assert not old.log


def test_addresses_of_a_set_are_networks() -> None:
    assert AddressSetSpec(addresses=("10.0.0.1", "fd00::/8")).addresses == (
        "10.0.0.1/32",
        "fd00::/8",
    )
    with pytest.raises(ValidationError):
        AddressSetSpec(addresses=("10.0.0.1/8",))


def test_keys_follow_group_and_rule() -> None:
    same = NamedRule(ResourceId("g"), "p", "renamed", WEB)
    assert same.key == NamedRule(ResourceId("g"), "p", "web", WEB).key
    assert same.key != NamedRule(ResourceId("h"), "p", "web", WEB).key


def test_the_link_local_address_of_a_mac() -> None:
    assert link_local("52:54:00:12:34:56") == "fe80::5054:ff:fe12:3456"
