"""Which differences between looks are drift, and which were asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import DhcpNetwork, GatewayLeg
from trivet.contracts.network.switch import Plug, Segment
from trivet.network.domain.drift import Drifted, drifted
from trivet.network.domain.node_plan import (
    EnsureDhcp,
    EnsureLeg,
    EnsurePlug,
    EnsureSegment,
    Observed,
    prepare,
)
from trivet.network.domain.segments import Wanted

NETWORK, PORT = ResourceId("network-1"), ResourceId("port-1")
SEGMENT = Segment(network=NETWORK, vni=100, mtu=1450, generation=1, local_vtep="192.0.2.1")
LEG = GatewayLeg(
    network=NETWORK, vni=100, mac="02:00:00:00:00:01", addresses=("10.9.0.1/24",), mtu=1450,
    external=True, generation=1,
)  # fmt: skip
DHCP = DhcpNetwork(
    network=NETWORK, generation=1, namespace="n", subnets=("10.9.0.0/24",),
    gateways=("10.9.0.1",), mtu=1450,
)  # fmt: skip
PLUG = Plug(
    port=PORT, vni=100, device="tvp0000000001", mac="02:00:00:00:00:02",
    addresses=("10.9.0.2",), mtu=1450, generation=1, up=True,
)  # fmt: skip
WANTED = Wanted(segments=(SEGMENT,), legs=(LEG,), dhcp=(DHCP,), plugs=(PLUG,))
WHOLE = Observed(
    segments=(SEGMENT,), plugs=(PLUG,), legs=(LEG,), served=(NETWORK,), dhcp={NETWORK: DHCP}
)


def changed(model: Any, **changes: Any) -> tuple[Any, ...]:
    return (model.model_copy(update=changes),)


@pytest.mark.parametrize(
    ("observed", "concerns", "said", "mended_by"),
    [
        (replace(WHOLE, segments=()), NETWORK, "bridge was gone", {EnsureSegment, EnsureLeg}),
        (
            replace(WHOLE, segments=changed(SEGMENT, network="", generation=0)),
            NETWORK,
            "bridge was gone",
            {EnsureSegment, EnsureLeg},
        ),
        (
            replace(WHOLE, segments=changed(SEGMENT, local_vtep=None)),
            NETWORK,
            "tunnel was gone",
            {EnsureSegment},
        ),
        (
            replace(WHOLE, segments=changed(SEGMENT, mtu=1500)),
            NETWORK,
            "was changed",
            {EnsureSegment},
        ),
        (replace(WHOLE, legs=()), NETWORK, "gateway was gone", {EnsureLeg}),
        (replace(WHOLE, served=()), NETWORK, "DHCP server", {EnsureDhcp}),
        (replace(WHOLE, plugs=()), PORT, "tap was gone", {EnsurePlug}),
        (replace(WHOLE, plugs=changed(PLUG, vni=0)), PORT, "on no bridge", {EnsurePlug}),
        (replace(WHOLE, plugs=changed(PLUG, mtu=9000)), PORT, "was changed", {EnsurePlug}),
        (replace(WHOLE, drift={PORT: "odd"}), PORT, "odd", {EnsurePlug}),
        (replace(WHOLE, drift={NETWORK: "odd"}), NETWORK, "odd", {EnsureSegment, EnsureLeg}),
    ],
)
def test_damage_is_told_and_mended(
    observed: Observed, concerns: ResourceId, said: str, mended_by: set[type]
) -> None:
    (found,) = drifted(WANTED, WANTED, observed)
    assert found.concerns == concerns
    assert said in found.what
    assert {type(a) for a in prepare(WANTED, observed)} == mended_by


def test_a_tap_that_is_down_is_told() -> None:
    """It is raised by `unlock`, once its firewall is known to stand."""
    (found,) = drifted(WANTED, WANTED, replace(WHOLE, plugs=changed(PLUG, up=False)))
    assert found == Drifted(PORT, "its tap was down")


def test_what_is_whole_is_no_drift() -> None:
    assert drifted(WANTED, WANTED, WHOLE) == ()


def test_what_was_never_whole_is_no_drift() -> None:
    assert drifted(Wanted(), WANTED, Observed(drift={PORT: "odd"})) == ()


def test_what_is_wanted_otherwise_now_is_no_drift() -> None:
    new = {"generation": 2, "mtu": 1400}
    wanted = replace(WANTED, segments=changed(SEGMENT, **new), plugs=changed(PLUG, **new))
    assert drifted(WANTED, wanted, WHOLE) == ()
    assert drifted(WANTED, Wanted(), Observed()) == ()
