"""From what a node is to carry and what it carries to the steps between: a pure function.

In three parts, for a port passes traffic only when its firewall stands. `prepare` removes what
is not wanted and makes the rest, with new or changed taps down; then the shell has the
firewall put in force; `unlock` raises the taps it names. A tap that is up and alike stays up:
a guest is not cut because something else is being changed.

Order is safety: what is not wanted goes first, taps before gateways before segments, so that
nothing is ever plugged beside a leftover that has its address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import DhcpNetwork, GatewayLeg
from trivet.contracts.network.switch import Plug, Segment, Station
from trivet.network.domain.segments import Wanted


@dataclass(frozen=True)
class Observed:
    """What the drivers see. DHCP servers and the stations of segments can't be read back in
    full: `dhcp` and `stations` are what this agent last asked for with success, of what is
    served still. `drift`: what a closer look found wrong, by the id of the network or port."""

    segments: tuple[Segment, ...] = ()
    plugs: tuple[Plug, ...] = ()
    legs: tuple[GatewayLeg, ...] = ()
    served: tuple[ResourceId, ...] = ()
    dhcp: Mapping[ResourceId, DhcpNetwork] = field(default_factory=dict)
    stations: Mapping[int, tuple[Station, ...]] = field(default_factory=dict)
    drift: Mapping[ResourceId, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnsureSegment:
    """Make a segment as it says."""

    segment: Segment


@dataclass(frozen=True)
class SetStations:
    """Make these known on a segment."""

    vni: int
    stations: tuple[Station, ...]


@dataclass(frozen=True)
class EnsureLeg:
    """Make a gateway's leg as it says."""

    leg: GatewayLeg


@dataclass(frozen=True)
class EnsureDhcp:
    """Serve a network as it says."""

    network: DhcpNetwork


@dataclass(frozen=True)
class EnsurePlug:
    """Make a tap as it says."""

    plug: Plug


@dataclass(frozen=True)
class RemovePlug:
    """Remove a tap."""

    device: str


@dataclass(frozen=True)
class RemoveDhcp:
    """Stop serving a network."""

    network: ResourceId


@dataclass(frozen=True)
class RemoveLeg:
    """Remove a gateway's leg."""

    network: ResourceId


@dataclass(frozen=True)
class RemoveSegment:
    """Remove a segment."""

    vni: int


Action = (
    EnsureSegment
    | SetStations
    | EnsureLeg
    | EnsureDhcp
    | EnsurePlug
    | RemovePlug
    | RemoveDhcp
    | RemoveLeg
    | RemoveSegment
)


def prepare(wanted: Wanted, observed: Observed) -> tuple[Action, ...]:
    """Everything but raising taps that are down."""
    return (*_removals(wanted, observed), *_networks(wanted, observed), *_taps(wanted, observed))


def forgotten(resources: int, observed: Observed) -> bool:
    """Whether the store seems to have lost its memory rather than the guests their reason.

    A port's record goes after its tap, so taps of ports while nothing at all is recorded mean
    an empty (new, lost) store: then nothing is torn down, for the node is all that is left to
    rebuild it from.
    """
    return resources == 0 and any(plug.port for plug in observed.plugs)


def unlock(
    wanted: Wanted, observed: Observed, protected: Mapping[ResourceId, int]
) -> tuple[EnsurePlug, ...]:
    """Raise the taps whose firewall is in force at their generation.

    `observed` is from after `prepare`: a tap that could not be made is not raised either.
    """
    down = {p.device: p for p in observed.plugs if not p.up}
    return tuple(
        EnsurePlug(plug)
        for plug in wanted.plugs
        if plug.device in down
        and protected.get(plug.port, 0) >= plug.generation
        and down[plug.device] == plug.model_copy(update={"up": False})
    )


def ready(
    wanted: Wanted, observed: Observed, protected: Mapping[ResourceId, int]
) -> frozenset[ResourceId]:
    """The ports that are as asked, up, and protected at their generation."""
    there = {p.device: p for p in observed.plugs}
    return frozenset(
        plug.port
        for plug in wanted.plugs
        if same(there.get(plug.device), plug) and protected.get(plug.port, 0) >= plug.generation
    )


def same(seen: Plug | None, plug: Plug) -> bool:
    """Whether a tap is as wanted. Most are asked about at every look and are the very objects
    that were asked for, which is quickly seen."""
    return seen is plug or seen == plug


def _kept(wanted: Wanted, observed: Observed) -> tuple[Plug, ...]:
    """The taps that stay: wanted, and on the segment where they are wanted, or on none (the
    bridge is gone): there they pass nothing, and a guest may have them open."""
    places = {p.device: p.vni for p in wanted.plugs}
    return tuple(p for p in observed.plugs if p.device in places and p.vni in (places[p.device], 0))


def _removals(wanted: Wanted, observed: Observed) -> tuple[Action, ...]:
    kept = {p.device for p in _kept(wanted, observed)}
    served = {n.network for n in wanted.dhcp}
    legs = {leg.network for leg in wanted.legs}
    vnis = {s.vni for s in wanted.segments}
    return (
        *(RemovePlug(p.device) for p in observed.plugs if p.device not in kept),
        *(RemoveDhcp(n) for n in observed.served if n not in served),
        *(RemoveLeg(leg.network) for leg in observed.legs if leg.network not in legs),
        *(RemoveSegment(s.vni) for s in observed.segments if s.vni not in vnis),
    )


def _networks(wanted: Wanted, observed: Observed) -> tuple[Action, ...]:
    dhcp = {n: observed.dhcp[n] for n in observed.served if n in observed.dhcp}
    # A bridge that is made anew has lost its gateway's link.
    anew = {s.vni for s in wanted.segments} - {s.vni for s in observed.segments if s.network}
    return (
        *(
            EnsureSegment(s)
            for s in wanted.segments
            if s not in observed.segments or s.network in observed.drift
        ),
        *(
            SetStations(vni, stations)
            for vni, stations in sorted(wanted.stations.items())
            if observed.stations.get(vni, ()) != stations
        ),
        *(
            EnsureLeg(leg)
            for leg in wanted.legs
            if leg not in observed.legs or leg.network in observed.drift or leg.vni in anew
        ),
        *(EnsureDhcp(n) for n in wanted.dhcp if dhcp.get(n.network) != n),
    )


def _taps(wanted: Wanted, observed: Observed) -> tuple[Action, ...]:
    """New taps come down. A tap that is up stays up through a change of its MTU or its
    generation (its firewall follows), but not of who it is or of where it is plugged."""
    there = {p.device: p for p in _kept(wanted, observed)}
    actions: list[Action] = []
    for plug in wanted.plugs:
        present = there.get(plug.device)
        up = present is not None and present.up and _same_guest(present, plug)
        asked = plug if up == plug.up else plug.model_copy(update={"up": up})
        if not same(present, asked) or plug.port in observed.drift:
            actions.append(EnsurePlug(asked))
    return tuple(actions)


def _same_guest(present: Plug, plug: Plug) -> bool:
    return (present.port, present.mac, present.addresses) == (plug.port, plug.mac, plug.addresses)
