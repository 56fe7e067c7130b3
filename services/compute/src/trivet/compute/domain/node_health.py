"""Whether a node is heard from, and what that means for its record."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from trivet.contracts.compute.node import Node
from trivet.contracts.compute.node_check import CheckResult
from trivet.contracts.resource import Condition, Phase

SKEW_BOUND_S = 5.0


def is_silent(silent_s: float, bound_s: float) -> bool:
    """Whether a node that was last heard `silent_s` ago counts as not heard from."""
    return silent_s > bound_s


def judged(node: Node, silent_s: float, bound_s: float, now: datetime) -> Node:
    """`node` as it is known to be, `silent_s` after its last beat; unchanged where that is
    what it says already. Silence means `unknown`, never that the node is off."""
    silent = is_silent(silent_s, bound_s)
    was_silent = node.status.phase is Phase.UNKNOWN or _told_silent(node)
    if silent == was_silent:
        return node
    if silent:
        message = f"nothing was heard from it for {bound_s:g} s"
        told = Condition(type="Heard", status="unknown", reason="Silent", message=message)
        phase = Phase.UNKNOWN
        heard_at = now - timedelta(seconds=silent_s)
    else:
        told = Condition(type="Heard", status="true", reason="HeardAgain", message="it is back")
        phase, heard_at = Phase.READY, now
    status = node.with_status(phase=phase, heard_at=heard_at).status.with_condition(told, now)
    return node.model_copy(update={"status": status})


def _told_silent(node: Node) -> bool:
    heard = node.status.condition("Heard")
    return heard is not None and heard.status != "true"


def with_checks(node: Node, results: Iterable[CheckResult], now: datetime) -> Node:
    """`node` with what its own checks say, as conditions."""
    status = node.status
    words: dict[bool | None, Literal["true", "false", "unknown"]]
    words = {True: "true", False: "false", None: "unknown"}
    for result in results:
        told = Condition(
            type=result.type,
            status=words[result.ok],
            reason=result.reason,
            message=result.message,
        )
        status = status.with_condition(told, now)
    return node.model_copy(update={"status": status})


def skewed(node: Node, skew_s: float, now: datetime) -> Node:
    """`node` with what the time in its beats says of its clock, seen from the leader's. It is
    wrong beyond a bound, and right again within half of it."""
    was_wrong = (old := node.status.condition("TimeSkew")) is not None and old.status == "false"
    wrong = abs(skew_s) > (SKEW_BOUND_S / 2 if was_wrong else SKEW_BOUND_S)
    if wrong == was_wrong:
        return node
    message = f"its clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
    told = Condition(
        type="TimeSkew",
        status="false" if wrong else "true",
        reason="Skewed" if wrong else "WithinBound",
        message=f"{message} of the leader's" if wrong else "",
    )
    return node.model_copy(update={"status": node.status.with_condition(told, now)})


def remains(node: Node, vms: list[str], volumes: list[str] | None) -> Condition | None:
    """Why a node that is deleted is still there; None where nothing holds it. `volumes` that have
    data there are moved away by the storage service; None: it did not say."""
    if vms:
        message = f"VMs are still on it: {', '.join(sorted(vms)[:20])}; delete them"
        return Condition(type="Deletable", status="false", reason="VmsRemain", message=message)
    if volumes is None:
        message = "the storage service does not say whether data are on it"
        return Condition(type="Deletable", status="unknown", reason="Asking", message=message)
    if volumes:
        named = ", ".join(sorted(volumes)[:20])
        message = f"data are being moved away from it: {named}; `trivet volume show` says how far"
        return Condition(type="Deletable", status="false", reason="DataRemain", message=message)
    return None
