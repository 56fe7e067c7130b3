"""What the status of a port or network says, from what was seen on a node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.contracts.resource import Condition, Phase


@dataclass(frozen=True)
class Seen:
    """A port as its node's agent sees it. `problem`: why it is not ready; `where` it failed:
    `Plugged` or `Protected`. `generation` is the one that was looked at. `drift`: what was
    found changed behind Trivet's back at this look."""

    node: str
    generation: int
    device: str
    mtu: int
    plugged: bool
    ready: bool
    where: str = ""
    problem: str = ""
    drift: str = ""


def status_after(port: Port, seen: Seen, now: datetime) -> Port:
    """The port with a status that says what was seen."""
    plugged = _condition("Plugged", seen.plugged, seen.where, seen.problem)
    protected = _condition("Protected", seen.ready, seen.where, seen.problem)
    status = port.status.with_condition(plugged, now).with_condition(protected, now)
    if seen.drift:
        status = status.with_condition(repaired(seen.node, seen.drift), now)
    changes: dict[str, object] = {
        "node": seen.node if seen.plugged else None,
        "device": seen.device if seen.plugged else None,
        "mtu": seen.mtu,
        "repairs": port.status.repairs + (1 if seen.drift else 0),
    }
    if seen.ready:
        changes |= {"phase": Phase.READY, "observed_generation": seen.generation}
    elif port.status.phase is Phase.READY:
        # It was ready for an older spec, and passes traffic by that one still.
        changes |= {"phase": Phase.DEGRADED if seen.problem else Phase.READY}
    return port.model_copy(update={"status": status}).with_status(**changes)


def network_after(network: Network, node: str, drift: str, now: datetime) -> Network:
    """The network with a status that says what was mended."""
    status = network.status.with_condition(repaired(node, drift), now)
    mended = network.model_copy(update={"status": status})
    return mended.with_status(repairs=network.status.repairs + 1)


def repaired(node: str, drift: str) -> Condition:
    """It is as it should be again; what was wrong is told."""
    return Condition(type="Intact", status="true", reason="Repaired", message=f"{node}: {drift}")


def _condition(type_: str, holds: bool, where: str, problem: str) -> Condition:
    # A tap may be there and its network broken: that is not plugged in anywhere.
    if where == type_ and problem:
        return Condition(type=type_, status="false", reason="Failed", message=problem)
    if holds:
        return Condition(type=type_, status="true", reason=type_)
    return Condition(type=type_, status="false", reason="Waiting")
