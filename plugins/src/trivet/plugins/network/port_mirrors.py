"""Copies of a port's traffic to another tap of the node, by the kernel's own traffic control.

A filter at the tap's hook copies each packet (mirred) and lets it go on. The hooks belong to one
queueing discipline (clsact), which the bounds on what comes from a guest use as well
(`port_rates`): its filter stands behind ours, so that a copy is of what the guest sent.

Copies leave by the other tap directly, past the bridge and its firewall.
"""

from __future__ import annotations

import json
from typing import Any

from trivet.contracts.errors import DRIVER_FAILED, NOT_SUPPORTED, Fatal, Refused
from trivet.contracts.network.port import Mirrored
from trivet.contracts.network.switch import PlugMirror
from trivet.plugins.network.command import attempt, run

# What comes from the guest is ingress of the tap, what goes to it is egress.
HOOKS = {Mirrored.EGRESS: "ingress", Mirrored.INGRESS: "egress"}
MATCH_ALL = "protocol all prio 1 u32 match u32 0 0"


async def ensure_hooks(device: str) -> None:
    """Make the tap's hooks; a discipline of the older kind, which has one alone, is replaced."""
    kinds = {q["kind"] for q in json.loads(await run("tc", "-j", "qdisc", "show", "dev", device))}
    if "clsact" in kinds:
        return
    if "ingress" in kinds:
        await run("tc", "qdisc", "delete", "dev", device, "ingress")
    await run("tc", "qdisc", "add", "dev", device, "clsact")


async def apply_mirror(device: str, mirror: PlugMirror | None) -> None:
    """Make exactly this the mirror of the tap. Raises `Refused(NOT_SUPPORTED)` where the kernel
    lacks what it takes."""
    wanted = _hooks_of(mirror)
    for hook in HOOKS.values():
        if mirror is None or hook not in wanted:
            await attempt("tc", "filter", "delete", "dev", device, hook, "prio", "1")
            continue
        try:
            await ensure_hooks(device)
            action = f"action mirred egress mirror dev {mirror.device} continue"
            command = ("tc", "filter", "replace", "dev", device, hook)
            await run(*command, *MATCH_ALL.split(), *action.split())
        except Fatal as error:
            if error.code is not DRIVER_FAILED:
                raise
            hint = "load the modules sch_ingress, cls_u32 and act_mirred"
            raise Refused(NOT_SUPPORTED, f"no mirror: {error.detail}", hint=hint) from error


async def is_mirrored(device: str, mirror: PlugMirror) -> bool:
    """Whether the tap's filters copy as asked."""
    for hook in _hooks_of(mirror):
        shown = await attempt("tc", "-j", "filter", "show", "dev", device, hook)
        filters: list[dict[str, Any]] = json.loads(shown.out or "[]") if shown.code == 0 else []
        actions = [a for f in filters for a in f.get("options", {}).get("actions", ())]
        if not any(a.get("to_dev") == mirror.device for a in actions):
            return False
    return True


def _hooks_of(mirror: PlugMirror | None) -> set[str]:
    if mirror is None:
        return set()
    both = mirror.direction is Mirrored.BOTH
    return {hook for d, hook in HOOKS.items() if both or mirror.direction is d}
