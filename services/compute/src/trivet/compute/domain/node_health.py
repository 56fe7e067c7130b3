"""Whether a node is heard from, and what that means for its record."""

from __future__ import annotations

from datetime import datetime, timedelta

from trivet.contracts.compute.node import Node
from trivet.contracts.resource import Condition, Phase


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


def remains(node: Node, vms: list[str]) -> Condition | None:
    """Why a node that is deleted is still there; None where nothing holds it."""
    if not vms:
        return None
    return Condition(
        type="Deletable",
        status="false",
        reason="VmsRemain",
        message=f"VMs are still on it: {', '.join(sorted(vms)[:20])}; delete them",
    )
