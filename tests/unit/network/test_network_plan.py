"""The node's plan: what is wanted, in which order, and that it converges."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.model import ResourceId
from trivet.contracts.network.network import Network, NetworkSpec, NetworkStatus
from trivet.contracts.network.port import Port, PortSpec, PortStatus
from trivet.contracts.network.switch import Plug, Segment
from trivet.contracts.resource import Meta, Phase
from trivet.network.domain.addresses import gateways_of
from trivet.network.domain.mac import mac_of
from trivet.network.domain.node_plan import (
    EnsureDhcp,
    EnsureLeg,
    EnsurePlug,
    EnsureSegment,
    Observed,
    RemoveDhcp,
    RemoveLeg,
    RemovePlug,
    RemoveSegment,
    SetStations,
    forgotten,
    prepare,
    ready,
    unlock,
)
from trivet.network.domain.port_status import Seen, status_after
from trivet.network.domain.segments import NodeView, Wanted, wanted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def network(number: int, **spec: Any) -> Network:
    subnet = f"10.{number}.0.0/24"
    return Network(
        meta=Meta(id=ResourceId(f"network-{number:016x}"), name=f"n{number}", project="p",
                  created_at=NOW),
        spec=NetworkSpec.model_validate({"subnets": (subnet,), **spec}),
        status=NetworkStatus(vni=100 + number, gateways=gateways_of([subnet]),
                             gateway_mac=mac_of(f"gateway {number}")),
    )  # fmt: skip


def port(number: int, net: int = 1, node: str | None = "n1", **meta: Any) -> Port:
    return Port(
        meta=Meta(id=ResourceId(f"port-{number:016x}"), name=f"p{number}", project="p",
                  created_at=NOW, **meta),
        spec=PortSpec(network=f"n{net}", node=node),
        status=PortStatus(mac=mac_of(str(number)), addresses=(f"10.{net}.0.{number + 2}",),
                          vni=100 + net, mtu=1450, network_id=f"network-{net:016x}"),
    )  # fmt: skip


def view(*ports: Port, networks: tuple[Network, ...] = (), **changes: Any) -> NodeView:
    known = networks or (network(1), network(2))
    plain: dict[str, Any] = {
        "node": "n1",
        "prefix": "tv",
        "ports": ports,
        "networks": {n.meta.id: n for n in known},
        "namespaces": {n.meta.id: f"tv-gw-{n.meta.id[-10:]}" for n in known},
    }
    return NodeView(**{**plain, **changes})


def applied(observed: Observed, actions: tuple[Any, ...]) -> Observed:
    """What a perfect node is after these actions."""
    segments = {s.vni: s for s in observed.segments}
    plugs = {p.device: p for p in observed.plugs}
    legs = {leg.network: leg for leg in observed.legs}
    dhcp = dict(observed.dhcp)
    stations = dict(observed.stations)
    for action in actions:
        match action:
            case EnsureSegment(segment):
                segments[segment.vni] = segment
                stations.pop(segment.vni, None)
            case SetStations(number, these):
                stations[number] = these
            case EnsureLeg(leg):
                assert leg.vni in segments
                legs[leg.network] = leg
            case EnsureDhcp(served):
                assert served.network in legs
                dhcp[served.network] = served
            case EnsurePlug(plug):
                assert plug.vni in segments
                plugs[plug.device] = plug
            case RemovePlug(device):
                plugs.pop(device)
            case RemoveDhcp(network_id):
                dhcp.pop(network_id)
            case RemoveLeg(network_id):
                legs.pop(network_id)
            case RemoveSegment(number):
                assert all(p.vni != number for p in plugs.values())
                segments.pop(number)
                stations.pop(number, None)
    return Observed(
        segments=tuple(segments.values()),
        plugs=tuple(plugs.values()),
        legs=tuple(legs.values()),
        served=tuple(dhcp),
        dhcp=dhcp,
        stations=stations,
    )


def settled(want: Wanted, observed: Observed) -> Observed:
    """The node after a pass with a firewall that protects everything."""
    prepared = applied(observed, prepare(want, observed))
    protected = {b.port: b.generation for b in want.bindings}
    return applied(prepared, unlock(want, prepared, protected))


def test_a_first_port_brings_its_network_in_order() -> None:
    want = wanted(view(port(1)))
    kinds = [type(a) for a in prepare(want, Observed())]
    assert kinds == [EnsureSegment, EnsureLeg, EnsureDhcp, EnsurePlug]
    (plug,) = [a.plug for a in prepare(want, Observed()) if isinstance(a, EnsurePlug)]
    assert not plug.up


@pytest.mark.parametrize(
    ("protected", "raised"), [({}, 0), ({"port-0000000000000001": 1}, 1), ({"other": 9}, 0)]
)
def test_only_protected_taps_are_raised(protected: dict[ResourceId, int], raised: int) -> None:
    want = wanted(view(port(1)))
    prepared = applied(Observed(), prepare(want, Observed()))
    assert len(unlock(want, prepared, protected)) == raised


def test_an_old_protection_raises_nothing() -> None:
    newer = port(1).with_meta(generation=2)
    want = wanted(view(newer))
    prepared = applied(Observed(), prepare(want, Observed()))
    assert unlock(want, prepared, {newer.meta.id: 1}) == ()


def test_a_tap_that_was_not_made_is_not_raised() -> None:
    want = wanted(view(port(1)))
    assert unlock(want, Observed(), {port(1).meta.id: 1}) == ()


def test_a_new_generation_keeps_the_tap_up() -> None:
    before = settled(wanted(view(port(1))), Observed())
    want = wanted(view(port(1).with_meta(generation=2)))
    (action,) = [a for a in prepare(want, before) if isinstance(a, EnsurePlug)]
    assert action.plug.up
    assert action.plug.generation == 2


def test_another_guest_at_the_same_tap_starts_down() -> None:
    before = settled(wanted(view(port(1))), Observed())
    other = port(1).with_status(mac="02:00:00:00:00:99")
    (action,) = [a for a in prepare(wanted(view(other)), before) if isinstance(a, EnsurePlug)]
    assert not action.plug.up


def test_the_last_port_takes_its_network_along() -> None:
    before = settled(wanted(view(port(1))), Observed())
    kinds = [type(a) for a in prepare(wanted(view()), before)]
    assert kinds == [RemovePlug, RemoveDhcp, RemoveLeg, RemoveSegment]


@pytest.mark.parametrize(
    "gone",
    [
        port(1, deleting_at=NOW),
        port(1, node=None),
        port(1, node="n2"),
        port(1, net=9),
    ],
    ids=["deleting", "nowhere", "elsewhere", "unknown network"],
)
def test_what_is_not_wanted_here(gone: Port) -> None:
    assert wanted(view(gone)) == Wanted()


def test_other_nodes_are_peers_where_there_are_tunnels() -> None:
    ports = (port(1), port(2, node="n2"), port(3, node="n3"), port(4, net=2, node="n2"))
    want = wanted(view(*ports, vteps={"n1": "192.0.2.1", "n2": "192.0.2.2"}))
    (segment,) = want.segments
    assert segment.local_vtep == "192.0.2.1"
    assert segment.peers == ("192.0.2.2",)
    found = {s.vtep: s.mac for s in want.stations[101][1:]}
    assert found == {None: mac_of("1"), "192.0.2.2": mac_of("2")}
    gateway = want.stations[101][0]
    assert (gateway.mac, gateway.vtep) == (want.legs[0].mac, None)
    assert gateway.addresses == tuple(a.split("/")[0] for a in want.legs[0].addresses)
    assert wanted(view(*ports)).stations == {}


def test_dhcp_names_the_guests_here_alone() -> None:
    want = wanted(view(port(1), port(2, node="n2")))
    (served,) = want.dhcp
    assert [h.hostname for h in served.hosts] == ["p1"]
    tunnels = {"n1": "192.0.2.1", "n2": "192.0.2.2"}
    (joined,) = wanted(view(port(1), port(2, node="n2"), vteps=tunnels)).dhcp
    assert [(h.hostname, h.leased) for h in joined.hosts] == [("p1", True), ("p2", False)]
    assert wanted(view(port(1), networks=(network(1, dhcp=False),))).dhcp == ()


def test_a_server_that_died_is_asked_for_again() -> None:
    want = wanted(view(port(1)))
    dead = replace(settled(want, Observed()), served=())
    assert [type(a) for a in prepare(want, dead)] == [EnsureDhcp]


@pytest.mark.parametrize(
    ("resources", "device", "expected"), [(0, "port-1", True), (1, "port-1", False), (0, "", False)]
)
def test_an_empty_store_is_told_from_an_empty_node(
    resources: int, device: str, expected: bool
) -> None:
    plug = Plug(port=ResourceId(device), vni=1, device="tvp1", mac="", addresses=(), mtu=1450,
                generation=1, up=True)  # fmt: skip
    assert forgotten(resources, Observed(plugs=(plug,))) is expected


ports_strategy = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.integers(1, 2),
        st.sampled_from(["n1", "n2", None]),
        st.integers(1, 3),
    ),
    unique_by=lambda t: t[0],
    max_size=6,
)


def views(drawn: list[tuple[int, int, str | None, int]]) -> NodeView:
    ports = [port(n, net, node).with_meta(generation=g) for n, net, node, g in drawn]
    return view(*ports, vteps={"n1": "192.0.2.1", "n2": "192.0.2.2"})


def content(observed: Observed) -> tuple[object, ...]:
    return (
        {s.vni: s for s in observed.segments},
        {p.device: p for p in observed.plugs},
        {leg.network: leg for leg in observed.legs},
        dict(observed.dhcp),
        {vni: s for vni, s in observed.stations.items() if s},
    )


@given(ports_strategy, ports_strategy)
def test_there_and_back_restores(
    first: list[tuple[int, int, str | None, int]], second: list[tuple[int, int, str | None, int]]
) -> None:
    one, two = wanted(views(first)), wanted(views(second))
    at_one = settled(one, Observed())
    back = settled(one, settled(two, at_one))
    assert content(back) == content(at_one)


@given(ports_strategy, ports_strategy)
def test_a_pass_converges(
    first: list[tuple[int, int, str | None, int]], second: list[tuple[int, int, str | None, int]]
) -> None:
    want = wanted(views(second))
    after = settled(want, settled(wanted(views(first)), Observed()))
    assert prepare(want, after) == ()
    protected = {b.port: b.generation for b in want.bindings}
    assert unlock(want, after, protected) == ()
    assert ready(want, after, protected) == {p.port for p in want.plugs}


@given(ports_strategy)
def test_strangers_on_the_node_go_before_anything_is_made(
    drawn: list[tuple[int, int, str | None, int]],
) -> None:
    stray = Observed(
        segments=(Segment(network=ResourceId(""), vni=999, mtu=1, generation=0),),
        plugs=(
            Plug(port=ResourceId(""), vni=999, device="tvpstray", mac="", addresses=(), mtu=1,
                 generation=0, up=True),
        ),
    )  # fmt: skip
    actions = prepare(wanted(views(drawn)), stray)
    assert actions[:2] == (RemovePlug("tvpstray"), RemoveSegment(999))


def seen(**changes: Any) -> Seen:
    plain = {"node": "n1", "generation": 1, "device": "tvp1", "mtu": 1450, "plugged": True,
             "ready": True}  # fmt: skip
    return Seen(**{**plain, **changes})


@pytest.mark.parametrize(
    ("before", "what", "phase", "node"),
    [
        (Phase.PENDING, seen(), Phase.READY, "n1"),
        (Phase.PENDING, seen(ready=False), Phase.PENDING, "n1"),
        (Phase.PENDING, seen(ready=False, plugged=False), Phase.PENDING, None),
        (Phase.READY, seen(ready=False), Phase.READY, "n1"),
        (Phase.READY, seen(ready=False, where="Plugged", problem="x"), Phase.DEGRADED, "n1"),
        (Phase.DEGRADED, seen(), Phase.READY, "n1"),
    ],
)
def test_status_says_what_was_seen(
    before: Phase, what: Seen, phase: Phase, node: str | None
) -> None:
    after = status_after(port(1).with_status(phase=before), what, NOW)
    assert (after.status.phase, after.status.node) == (phase, node)


def test_a_problem_is_told_where_it_is() -> None:
    after = status_after(port(1), seen(ready=False, where="Protected", problem="no group"), NOW)
    plugged, protected = (after.status.condition(t) for t in ("Plugged", "Protected"))
    assert plugged is not None
    assert protected is not None
    assert (plugged.status, protected.status) == ("true", "false")
    assert protected.message == "no group"


def test_an_edit_meanwhile_is_not_called_ready() -> None:
    newer = port(1).with_meta(generation=2)
    after = status_after(newer, seen(generation=1), NOW)
    assert not after.settled()


def test_a_network_that_had_a_port_lately_stays() -> None:
    before = settled(wanted(view(port(1), port(2, net=2))), Observed())
    lately = frozenset({network(1).meta.id, ResourceId("network-of-nobody")})
    want = wanted(view(port(2, net=2), lately=lately))
    gone = [a for a in prepare(want, before) if not isinstance(a, EnsureDhcp)]
    assert gone == [RemovePlug(p.device) for p in before.plugs if p.port == port(1).meta.id]
    again = settled(want, before)
    assert {type(a) for a in prepare(wanted(view(port(1), port(2, net=2))), again)} == {
        EnsureDhcp,
        EnsurePlug,
    }


def test_a_network_that_is_deleted_goes_with_its_last_port() -> None:
    before = settled(wanted(view(port(1))), Observed())
    deleted = network(1).with_meta(deleting_at=NOW)
    want = wanted(view(networks=(deleted,), lately=frozenset({deleted.meta.id})))
    assert {type(a) for a in prepare(want, before)} == {
        RemovePlug,
        RemoveDhcp,
        RemoveLeg,
        RemoveSegment,
    }
