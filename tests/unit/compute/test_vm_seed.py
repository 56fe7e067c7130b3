"""A seed says what the VM asks for, with its cards as its ports are."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from trivet.compute.domain.seed import seed_of, wants_seed
from trivet.contracts.compute.seed import USER_DATA_BYTES
from trivet.contracts.compute.vm import Vm, VmNic, VmSpec, VmStatus
from trivet.contracts.model import ResourceId
from trivet.contracts.network.network import Network, NetworkSpec, NetworkStatus
from trivet.contracts.resource import Meta

NOW = datetime(2026, 1, 2, tzinfo=UTC)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1234567890abcdefghijklmnopqrstuvwxyzABCDE me@here"
NIC = VmNic(port="web-0", network="lan", mac="02:00:00:00:00:01", addresses=("10.0.0.5", "fd00::5"))


def vm(**spec: Any) -> Vm:
    meta = Meta(id=ResourceId("vm-1"), name="web", project="p", created_at=NOW)
    return Vm(meta=meta, spec=VmSpec.model_validate(spec), status=VmStatus())


def lan(**spec: Any) -> Network:
    meta = Meta(id=ResourceId("network-1"), name="lan", project="p", created_at=NOW)
    asked = NetworkSpec.model_validate({"subnets": ("10.0.0.0/24", "fd00::/64"), **spec})
    status = NetworkStatus(gateways=("10.0.0.1/24", "fd00::1/64"))
    return Network(meta=meta, spec=asked, status=status)


def test_only_who_asks_gets_one() -> None:
    assert not wants_seed(vm())
    assert wants_seed(vm(user_data=""))
    assert wants_seed(vm(ssh_keys=[KEY]))


def test_who_the_guest_is() -> None:
    seed = seed_of(vm(ssh_keys=[KEY]), (), {})
    assert json.loads(seed.meta_data) == {
        "instance-id": "vm-1",
        "local-hostname": "web",
        "public-keys": [KEY],
    }
    assert seed.user_data.startswith("#cloud-config\n")
    assert seed_of(vm(user_data="#!/bin/sh\nid\n"), (), {}).user_data == "#!/bin/sh\nid\n"


def test_a_card_has_what_its_port_has() -> None:
    config = json.loads(seed_of(vm(user_data="x"), (NIC,), {"lan": lan()}).network_config)
    assert config["version"] == 2
    assert config["ethernets"]["nic0"] == {
        "match": {"macaddress": "02:00:00:00:00:01"},
        "set-name": "eth0",
        "mtu": 1450,
        "addresses": ["10.0.0.5/24", "fd00::5/64"],
        "gateway4": "10.0.0.1",
        "gateway6": "fd00::1",
        "nameservers": {"addresses": ["10.0.0.1", "fd00::1"]},
    }


def test_resolvers_of_the_networks_own_choice() -> None:
    networks = {"lan": lan(dns=("192.0.2.53",))}
    config = json.loads(seed_of(vm(user_data="x"), (NIC,), networks).network_config)
    assert config["ethernets"]["nic0"]["nameservers"] == {"addresses": ["192.0.2.53"]}


def test_a_card_on_an_unknown_network_asks_by_itself() -> None:
    config = json.loads(seed_of(vm(user_data="x"), (NIC,), {}).network_config)
    assert config["ethernets"]["nic0"]["dhcp4"] is True


def test_each_change_is_another_seed_and_none_is_shown() -> None:
    secret = "chpasswd: {expire: false, list: 'root:hunter2'}"
    one = seed_of(vm(user_data=secret), (NIC,), {"lan": lan()})
    assert one.digest == seed_of(vm(user_data=secret), (NIC,), {"lan": lan()}).digest
    assert one.digest != seed_of(vm(user_data=secret + " "), (NIC,), {"lan": lan()}).digest
    assert one.digest != seed_of(vm(user_data=secret), (), {}).digest
    assert "hunter2" not in f"{one!r} {one} {vm(user_data=secret)!r}"


@pytest.mark.parametrize(
    "bad",
    [
        {"user_data": "x" * (USER_DATA_BYTES + 1)},
        {"user_data": "ä" * (USER_DATA_BYTES // 2 + 1)},
        {"ssh_keys": ["not a key"]},
        {"ssh_keys": [KEY + "\nssh-ed25519 AAAA"]},
        {"ssh_keys": [KEY] * 65},
    ],
)
def test_what_is_too_much_or_no_key_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VmSpec.model_validate(bad)
