"""What changes in a running guest: the rows of the node's table for hot-plug.

They come after what is seen is on record, so that what is waited for is always told, and what
frees comes before what takes. One device that can't come or go does not hold up the others. A
guest that is off has none of this: it starts with what is asked for then.
"""

from __future__ import annotations

from trivet.compute.domain.actions import (
    Action,
    PlugDisk,
    PlugNic,
    Release,
    Scale,
    ShowSize,
    Tune,
    Unplug,
    Wait,
)
from trivet.compute.domain.hardware import (
    can_have_cd,
    can_have_memory,
    can_have_vcpus,
    disks_leaving,
    disks_to_have,
    gaps,
    lacking,
    nics_leaving,
    nics_to_have,
)
from trivet.compute.domain.situation import ASK_EVERY_S, Rule, Situation
from trivet.contracts.compute.vm import Power, WantedPower

LOOK_S = 1.0


def _runs(s: Situation) -> bool:
    wanted = s.wanted is WantedPower.RUNNING and s.power is Power.RUNNING
    return wanted and s.run_open and s.epoch_is(lambda has, due: has == due)


def _may_plug(s: Situation) -> bool:
    return _runs(s) and s.seen.can_plug


def _has(s: Situation) -> tuple[frozenset[str], frozenset[str]]:
    domain = s.seen.domain
    return (frozenset(domain.disks), frozenset(domain.nics)) if domain else (frozenset(),) * 2


def _to_unplug(s: Situation) -> tuple[str, ...]:
    """The devices that are asked for no more, and of which the guest was not asked lately."""
    disks, nics = _has(s)
    leaving = [d.name for d in disks_leaving(s.vm) if d.name in disks]
    leaving += [n.mac for n in nics_leaving(s.vm) if n.mac is not None and n.mac in nics]
    asked = s.seen.asked_off
    return tuple(d for d in leaving if s.seconds_until(asked.get(d), ASK_EVERY_S) <= 0)


def _to_plug(s: Situation) -> tuple[Action, ...]:
    disks, nics = _has(s)
    found: list[Action] = [
        PlugDisk(d.name)
        for d in disks_to_have(s.vm)
        if d.name not in disks and (not d.cd or can_have_cd(s.vm))
    ]
    found += [PlugNic(n.port) for n in nics_to_have(s.vm) if n.mac not in nics]
    return tuple(found[:1])


def _sizes(s: Situation) -> Scale | None:
    """The processors and memory that the run can get now; None where it has them."""
    has, asked = s.vm.status.runs_with, s.vm.spec.hardware
    if has is None:
        return None
    vcpus = asked.vcpus if can_have_vcpus(has, asked) else has.vcpus
    memory_mib = asked.memory_mib if can_have_memory(has, asked) else has.memory_mib
    same = (vcpus, memory_mib) == (has.vcpus, has.memory_mib)
    return None if same else Scale(vcpus, memory_mib)


def _grown(s: Situation) -> tuple[Action, ...]:
    """The first disk whose volume was asked to be larger than the guest was shown."""
    disks, _ = _has(s)
    found = [d for d in disks_to_have(s.vm) if d.name in disks and 0 < d.guest_gib < d.size_gib]
    return tuple(ShowSize(d.name) for d in found[:1])


def _open_gaps(s: Situation) -> str:
    found = [f"{what} is being made" for what in lacking(s.vm)]
    return "; ".join(found or [gap.message for gap in gaps(s.vm) if gap.live])


LIVE_RULES: tuple[Rule, ...] = (
    Rule(
        "live-unplug",
        "the guest has devices that are asked for no more: it is asked to let go of them",
        lambda s: _may_plug(s) and bool(_to_unplug(s)),
        lambda s: tuple(Unplug(device) for device in _to_unplug(s)),
    ),
    Rule(
        "live-release",
        "the guest let go of what is asked for no more",
        lambda s: _runs(s) and bool(s.to_release),
        lambda s: (Release(s.to_release),),
    ),
    Rule(
        "live-scale",
        "more processors or memory are asked for, and its domain was made for that",
        lambda s: _may_plug(s) and _sizes(s) is not None,
        lambda s: tuple(filter(None, [_sizes(s)])),
    ),
    Rule(
        "live-tune",
        "it is to get its processors another way: asked so, or somebody else changed it",
        lambda s: _runs(s) and s.seen.tuning is not None and not s.tuned,
        lambda s: (Tune(s.seen.tuning),) if s.seen.tuning is not None else (),
    ),
    Rule(
        "live-plug",
        "a disk or a card is there, and the guest does not have it yet",
        lambda s: _may_plug(s) and bool(_to_plug(s)),
        _to_plug,
    ),
    Rule(
        "live-grow",
        "a disk has grown, and the guest does not know it yet",
        lambda s: _may_plug(s) and bool(_grown(s)),
        _grown,
    ),
    Rule(
        "live-wait",
        "something is still to come or to go",
        lambda s: _may_plug(s) and any(gap.live for gap in gaps(s.vm)),
        lambda s: (Wait(_open_gaps(s)),),
        lambda s: LOOK_S,
    ),
)
