"""When something of the network service wants attention. One entry a rule, most urgent first."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.alarm import AlarmRule, Severity, alarm_kind
from trivet.contracts.network.port import PORT, Port

ALARM = alarm_kind("network")


def _unprotected(port: Port, now: datetime) -> str | None:
    return _not(port, "Protected", "the firewall has no rules for it, so that it passes nothing")


def _unplugged(port: Port, now: datetime) -> str | None:
    return _not(port, "Plugged", "it is not plugged in, so that it passes nothing")


def _not(port: Port, type_: str, plain: str) -> str | None:
    told = port.status.condition(type_)
    wanted = port.spec.node is not None and port.meta.deleting_at is None
    if not wanted or told is None or told.status != "false":
        return None
    if type_ == "Protected" and port.status.node is None:
        return None  # Not plugged in: that is the other alarm.
    return f"port {port.meta.name} on {port.spec.node}: {told.message or plain}"


RULES: tuple[AlarmRule[Port], ...] = (
    AlarmRule(
        "port-not-protected",
        PORT,
        Severity.CRITICAL,
        "A port has no firewall rules in force",
        "The guest behind it is cut off (a port passes nothing before its rules are in force). "
        "The security service's log on that node says what nftables refuses; `trivet doctor` "
        "there says whether its driver works.",
        _unprotected,
        after_s=15,
    ),
    AlarmRule(
        "port-not-plugged",
        PORT,
        Severity.CRITICAL,
        "A port is not plugged in on its node",
        "The network service's log on that node says what failed. It is tried again by itself.",
        _unplugged,
        after_s=30,
    ),
)
