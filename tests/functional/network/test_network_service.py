"""Networks and ports from create to delete, as their users and the node see them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.functional.network.conftest import World, settings, until

from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import (
    IMMUTABLE,
    IN_USE,
    INVALID,
    NAME_TAKEN,
    REFERENCE,
    Refused,
)
from trivet.contracts.network.codes import (
    ADDRESS_TAKEN,
    NO_ADDRESS,
    NOT_ON_NODE,
    SUBNET_OVERLAP,
    VNI_TAKEN,
)
from trivet.contracts.network.endpoints.network_ping import ENDPOINT as PING
from trivet.contracts.network.endpoints.network_ping import PingRequest
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.network.port import PortQos, Rate
from trivet.contracts.resource import Phase
from trivet.contracts.security.codes import QUOTA
from trivet.contracts.security.endpoints.quota_claim import ENDPOINT as CLAIM
from trivet.contracts.security.endpoints.quota_claim import ClaimRequest, ClaimResponse
from trivet.network.holdings import address_key
from trivet.runtime.call import Call
from trivet.runtime.claims import Claims
from trivet.testing.fakes import dhcp, gateway, switch
from trivet.testing.harness import Harness


async def test_a_port_becomes_ready(world: World) -> None:
    network = await world.network(subnets=("10.9.0.0/24", "fd00:9::/64"))
    assert network.status.gateways == ("10.9.0.1/24", "fd00:9::1/64")
    await world.port("a", hostname="web-1")
    port = await world.get_port("a", settle_s=5)
    assert port.status.phase is Phase.READY
    assert port.status.node == "n1"
    assert port.status.addresses[0] == "10.9.0.2"
    assert port.status.addresses[1].startswith("fd00:9::")
    plug = world.switch().plugs[port.status.device or ""]
    assert (plug.up, plug.mac, plug.vni) == (True, port.status.mac, network.status.vni)
    assert world.gateway().legs[network.meta.id].mac == network.status.gateway_mac
    assert world.dhcp().resolve(network.meta.id, "web-1") == set(port.status.addresses)
    assert (await world.get_network(settle_s=5)).status.phase is Phase.READY


async def test_no_tap_is_up_before_the_firewall_stands(world: World) -> None:
    world.firewall.away = True
    await world.network()
    made = await world.port("a")
    await until(lambda: bool(world.switch().plugs) and bool(world.firewall.asked))

    async def told() -> bool:
        condition = (await world.get_port("a")).status.condition("Protected")
        return condition is not None and "can't be asked" in condition.message

    await until(told)
    assert (await world.get_port("a")).status.phase is Phase.PENDING
    assert not any(p.up for p in world.switch().plugs.values())
    world.firewall.away = False
    port = await world.get_port("a", settle_s=5)
    assert port.status.phase is Phase.READY
    first = next(n for n, r in enumerate(world.firewall.asked) if r.bindings)
    assert made.meta.id not in world.firewall.up_when_asked[first]


async def test_why_a_port_is_not_protected_is_told(world: World) -> None:
    world.firewall.refuse = "there is no security group web"
    await world.network()
    await world.port("a")

    async def told() -> bool:
        condition = (await world.get_port("a")).status.condition("Protected")
        return condition is not None and "no security group" in condition.message

    await until(told)


async def test_a_new_group_is_protected_without_a_cut(world: World) -> None:
    await world.network()
    await world.port("a")
    port = await world.get_port("a", settle_s=5)
    device = port.status.device or ""
    world.firewall.away = True
    await world.edit_port("a", security_groups=["web"])
    await until(lambda: len(world.firewall.asked[-1].bindings[0].security_groups) == 1)
    await until(lambda: world.switch().plugs[device].generation == 2)
    assert world.switch().plugs[device].up
    world.firewall.away = False
    port = await world.get_port("a", settle_s=5)
    assert port.status.observed_generation == 2
    assert world.firewall.asked[-1].bindings[0].security_groups == ("web",)


async def test_deleting_leaves_nothing(world: World) -> None:
    await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    with pytest.raises(Refused) as caught:
        await world.delete_network()
    assert caught.value.code is IN_USE
    await world.delete_port("a")
    await until(lambda: world.port_gone("a"))
    await world.delete_network()
    await until(world.network_gone)
    await until(lambda: not world.switch().segments)
    assert not world.switch().plugs
    assert not world.gateway().legs
    assert not world.dhcp().networks

    async def free() -> bool:
        return not await world.claims()

    await until(free)
    await world.network()


async def test_a_port_moves_to_another_node(world: World) -> None:
    await world.network()
    await world.port("a", node=None)
    assert (await world.get_port("a")).status.phase is Phase.PENDING
    assert not world.switch().plugs
    await world.edit_port("a", node="n1")
    assert (await world.get_port("a", settle_s=5)).status.node == "n1"
    await world.edit_port("a", node="n2")
    await until(lambda: not world.switch().plugs)


async def test_a_port_without_a_node_is_deleted(world: World) -> None:
    await world.network()
    await world.port("a", node=None)
    await world.delete_port("a")
    await until(lambda: world.port_gone("a"))


async def test_addresses_are_checked(world: World) -> None:
    await world.network()
    await world.port("a", addresses=["10.9.0.20"])
    for address, code in (
        ("10.9.0.20", ADDRESS_TAKEN),
        ("10.9.0.1", INVALID),
        ("10.9.0.0", INVALID),
        ("10.9.0.255", INVALID),
        ("192.0.2.1", INVALID),
        ("nonsense", INVALID),
    ):
        with pytest.raises(Refused) as caught:
            await world.port("b", addresses=[address])
        assert caught.value.code is code, address
    with pytest.raises(Refused) as caught:
        await world.port("b", network="none")
    assert caught.value.code is REFERENCE
    with pytest.raises(Refused) as caught:
        await world.edit_port("a", addresses=["10.9.0.21"])
    assert caught.value.code is IMMUTABLE


async def test_a_refused_create_keeps_no_claim(world: World) -> None:
    await world.network()
    await world.port("a")
    before = await world.claims()
    with pytest.raises(Refused) as caught:
        await world.port("a")
    assert caught.value.code is NAME_TAKEN
    with pytest.raises(Refused) as caught:
        await world.port("b", addresses=["10.9.0.2"])
    assert caught.value.code is ADDRESS_TAKEN
    with pytest.raises(Refused):
        await world.network("lan", subnets=("10.10.0.0/24",))
    assert await world.claims() == before
    await world.network("other", subnets=("10.10.0.0/24",))


async def test_twenty_at_once_get_twenty_addresses(world: World) -> None:
    await world.network()
    ports = await asyncio.gather(*(world.port(f"p{n}") for n in range(20)))
    addresses = {p.status.addresses[0] for p in ports}
    assert len(addresses) == 20
    assert len({p.status.mac for p in ports}) == 20
    ready = await asyncio.gather(*(world.get_port(f"p{n}", settle_s=8) for n in range(20)))
    assert all(p.status.phase is Phase.READY for p in ready)


async def test_one_address_for_twenty_is_one_ports(world: World) -> None:
    await world.network()
    outcomes = await asyncio.gather(
        *(world.port(f"p{n}", addresses=["10.9.0.50"]) for n in range(20)), return_exceptions=True
    )
    refused = [o for o in outcomes if isinstance(o, Refused)]
    assert len(refused) == 19
    assert {e.code for e in refused} == {ADDRESS_TAKEN}


async def test_a_full_subnet_says_so(world: World) -> None:
    await world.network(subnets=("10.9.0.0/29",))
    await asyncio.gather(*(world.port(f"p{n}") for n in range(5)))
    with pytest.raises(Refused) as caught:
        await world.port("late")
    assert caught.value.code is NO_ADDRESS


async def test_networks_of_a_project_do_not_overlap(world: World) -> None:
    outcomes = await asyncio.gather(
        *(world.network(f"n{n}", subnets=(f"10.9.0.0/{20 + n % 5}",)) for n in range(10)),
        return_exceptions=True,
    )
    refused = [o for o in outcomes if isinstance(o, Refused)]
    assert len(refused) == 9
    assert {e.code for e in refused} == {SUBNET_OVERLAP}
    await world.network("elsewhere", project="q", subnets=("10.9.0.0/24",))


async def test_a_vni_is_one_networks(world: World) -> None:
    await world.network("a", vni=77)
    with pytest.raises(Refused) as caught:
        await world.network("b", vni=77, subnets=("10.10.0.0/24",))
    assert caught.value.code is VNI_TAKEN
    await world.network("b", vni=78, subnets=("10.10.0.0/24",))
    with pytest.raises(Refused) as caught:
        await world.edit_network("b", vni=79)
    assert caught.value.code is IMMUTABLE


async def test_a_change_of_the_network_reaches_the_node(world: World) -> None:
    network = await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    await world.edit_network("lan", external=False, mtu=1400, dhcp=False)
    await until(lambda: not world.gateway().legs[network.meta.id].external)
    await until(lambda: not world.dhcp().networks)
    await until(lambda: {p.mtu for p in world.switch().plugs.values()} == {1400})
    assert all(p.up for p in world.switch().plugs.values())


async def test_ping_asks_a_node_that_has_the_network(world: World) -> None:
    await world.network()
    asked = PingRequest(project="p", name="lan", address="10.9.0.2")
    with pytest.raises(Refused) as caught:
        await world.harness.call(PING, asked)
    assert caught.value.code is NOT_ON_NODE
    port = await world.port("a")
    await world.get_port("a", settle_s=5)
    assert port.status.vni is not None
    assert not (await world.harness.call(PING, asked)).answered
    world.gateway().guests.add((port.status.vni, "10.9.0.2"))
    answer = await world.harness.call(PING, asked)
    assert (answer.answered, answer.node) == (True, "n1")


async def test_bindings_tell_the_firewall_everything(world: World) -> None:
    network = await world.network()
    port = await world.port("a", security_groups=["web", "db"])
    await world.get_port("a", settle_s=5)
    (binding,) = (await world.harness.call(BINDINGS, Nothing(), node="n1")).bindings
    assert binding == world.firewall.asked[-1].bindings[0]
    assert binding.port == port.meta.id
    assert binding.security_groups == ("web", "db")
    assert binding.gateways == ("10.9.0.1",)
    assert binding.vni == network.status.vni


async def test_a_killed_service_goes_on_where_it_was(world: World) -> None:
    await world.network()
    world.firewall.away = True
    await world.port("a")
    await until(lambda: bool(world.switch().plugs))
    identities = dict(world.switch().identities)
    await world.harness.crash("network")
    world.firewall.away = False
    await world.start()
    assert (await world.get_port("a", settle_s=5)).status.phase is Phase.READY
    assert world.switch().identities == identities


async def test_an_empty_store_tears_nothing_down(tmp_path: Path) -> None:
    async with Harness(tmp_path, plugins=(switch, gateway, dhcp), network=settings()) as harness:
        world = World(harness)
        await world.start()
        await world.network()
        await world.port("a")
        await world.get_port("a", settle_s=5)
        plugs = dict(world.switch().plugs)
    async with Harness(
        tmp_path, plugins=(switch, gateway, dhcp), network=settings(look_s=0.05)
    ) as harness:
        world = World(harness)
        await world.start()
        looks = world.switch().looks
        await until(lambda: world.switch().looks > looks + 3)
        assert world.switch().plugs == plugs
        # As soon as the store knows of anything, what nobody wants goes.
        await world.network("other")
        await until(lambda: not world.switch().plugs)


async def test_claims_left_behind_are_swept(tmp_path: Path) -> None:
    async with Harness(
        tmp_path, plugins=(switch, gateway, dhcp), network=settings(claim_age_s=0.2)
    ) as harness:
        world = World(harness)
        await world.start()
        network = await world.network()
        port = await world.port("a")
        store = Claims(harness.store("network"))
        lost = address_key(network.meta.id, "10.9.0.99")
        assert await store.claim(lost, "port-00000000000000ff")  # type: ignore[arg-type]

        async def free() -> bool:
            return lost not in await world.claims()

        await until(free)
        kept = await world.claims()
        assert kept[address_key(network.meta.id, "10.9.0.2")] == port.meta.id
        assert len(kept) == 3


async def test_a_driver_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    faults = {"fake-gateway": {"fail": {"ensure_leg": 2}}}
    async with Harness(tmp_path, plugins=(switch, gateway, dhcp), network=settings()) as harness:
        harness.settings = harness.settings.model_copy(update={"plugins": faults})
        world = World(harness)
        await world.start()
        await world.network()
        await world.port("a")

        async def told() -> bool:
            condition = (await world.get_port("a")).status.condition("Plugged")
            return condition is not None and "a fault that the test ordered" in condition.message

        await until(told)
        assert (await world.get_port("a", settle_s=8)).status.phase is Phase.READY


async def test_bounds_reach_the_tap_and_change_without_a_cut(world: World) -> None:
    await world.network()
    await world.port("a", qos={"egress": {"bytes_per_s": 1_000_000}})
    port = await world.get_port("a", settle_s=5)
    device = port.status.device or ""
    assert world.switch().plugs[device].qos == port.spec.qos
    identity = world.switch().identities[device]
    await world.edit_port("a", qos={"ingress": {"bytes_per_s": 5_000}, "egress": None})
    port = await world.get_port("a", settle_s=5)
    assert port.status.observed_generation == 2
    assert world.switch().plugs[device].qos == PortQos(ingress=Rate(bytes_per_s=5_000))
    assert world.switch().identities[device] == identity
    assert world.switch().plugs[device].up


async def test_a_port_over_the_quota_holds_nothing(tmp_path: Path) -> None:
    async def claim(request: ClaimRequest, call: Call) -> ClaimResponse:
        if request.amounts:
            raise Refused(QUOTA, "no more ports")
        return ClaimResponse()

    plugins = (switch, gateway, dhcp)
    async with Harness(tmp_path, plugins=plugins, network=settings()) as harness:
        world = World(harness)
        await world.start()
        await world.network()
        before = await world.claims()
        await harness.fake(CLAIM, claim)
        with pytest.raises(Refused) as caught:
            await world.port("a")
        assert caught.value.code is QUOTA
        assert await world.claims() == before
