"""What was right on the node at the last look and is not any more, though nobody asked for that.

Somebody, or a crash, changed it behind Trivet's back. The plan mends it like anything else that
is missing; this says that it happened, for the status and the events. Only what is wanted
exactly as at the last good look counts: a change that was asked for is no drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trivet.contracts.model import ResourceId
from trivet.contracts.network.switch import Plug
from trivet.network.domain.node_plan import Observed, same
from trivet.network.domain.segments import Wanted


@dataclass(frozen=True)
class Drifted:
    """`concerns`: the id of a network or a port; `what` is wrong with it."""

    concerns: ResourceId
    what: str


def drifted(settled: Wanted, wanted: Wanted, observed: Observed) -> tuple[Drifted, ...]:
    """What was seen to be wrong, by what it concerns, all of it in one."""
    found: dict[ResourceId, list[str]] = {}
    for drift in (
        *_segments(settled, wanted, observed),
        *_legs(settled, wanted, observed),
        *_servers(settled, wanted, observed),
        *_taps(settled, wanted, observed),
        *_closer(settled, wanted, observed),
    ):
        found.setdefault(drift.concerns, []).append(drift.what)
    return tuple(Drifted(c, "; ".join(what)) for c, what in sorted(found.items()))


def _segments(settled: Wanted, wanted: Wanted, observed: Observed) -> Iterator[Drifted]:
    there = {s.vni: s for s in observed.segments}
    for segment in set(settled.segments) & set(wanted.segments) - set(observed.segments):
        seen = there.get(segment.vni)
        if seen is None or seen.network != segment.network:
            what = "its bridge was gone"
        elif seen.local_vtep != segment.local_vtep:
            what = "its tunnel was gone"
        else:
            what = "its bridge or tunnel was changed"
        yield Drifted(segment.network, what)


def _legs(settled: Wanted, wanted: Wanted, observed: Observed) -> Iterator[Drifted]:
    for leg in set(settled.legs) & set(wanted.legs) - set(observed.legs):
        yield Drifted(leg.network, "its gateway was gone")


def _servers(settled: Wanted, wanted: Wanted, observed: Observed) -> Iterator[Drifted]:
    for network in wanted.dhcp:
        if network.network not in observed.served and network in settled.dhcp:
            yield Drifted(network.network, "its DHCP server did not answer")


def _taps(settled: Wanted, wanted: Wanted, observed: Observed) -> Iterator[Drifted]:
    there = {p.device: p for p in observed.plugs}
    before = {p.port: p for p in settled.plugs}
    for plug in wanted.plugs:
        # Most are the very same objects as before, which is quickly seen.
        was, seen = before.get(plug.port), there.get(plug.device)
        if not same(seen, plug) and same(was, plug):
            yield Drifted(plug.port, _tap_was(seen))


def _tap_was(seen: Plug | None) -> str:
    if seen is None:
        return "its tap was gone: the guest's card has lost its end, and needs to be plugged anew"
    if seen.vni == 0:
        return "its tap was on no bridge"
    return "its tap was changed" if seen.up else "its tap was down"


def _closer(settled: Wanted, wanted: Wanted, observed: Observed) -> Iterator[Drifted]:
    if not observed.drift:
        return
    known = {s.network for s in set(settled.segments) & set(wanted.segments)}
    known |= {p.port for p in set(settled.plugs) & set(wanted.plugs)}
    for concerns, what in observed.drift.items():
        if concerns in known:
            yield Drifted(concerns, what)
