"""What a VM's seed holds: who the guest is, who may log in, how its cards are set up.

A VM has a seed if it asks for something that a seed brings. The cards' set-up is static, from
what the ports have, so that a guest has its addresses whether or not its network has DHCP. All of
it is JSON, which is YAML, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from trivet.contracts.compute.seed import Seed
from trivet.contracts.compute.vm import Vm, VmNic
from trivet.contracts.network.network import Network

NOTHING_ASKED = "#cloud-config\n{}\n"


def wants_seed(vm: Vm) -> bool:
    """Whether the VM asks for something that a seed brings."""
    return vm.spec.user_data is not None or bool(vm.spec.ssh_keys)


def seed_of(vm: Vm, nics: Sequence[VmNic], networks: Mapping[str, Network]) -> Seed:
    """The seed of a VM with these cards, on these networks (by name)."""
    meta: dict[str, Any] = {
        "instance-id": vm.meta.id,
        "local-hostname": vm.meta.name,
        "public-keys": list(vm.spec.ssh_keys),
    }
    cards = {
        f"nic{i}": _card(f"eth{i}", nic, networks.get(nic.network)) for i, nic in enumerate(nics)
    }
    return Seed(
        user_data=vm.spec.user_data or NOTHING_ASKED,
        meta_data=json.dumps(meta, indent=1) + "\n",
        network_config=json.dumps({"version": 2, "ethernets": cards}, indent=1) + "\n",
    )


def _card(name: str, nic: VmNic, network: Network | None) -> dict[str, Any]:
    """One card, found by its MAC; by DHCP where its network is not known."""
    card: dict[str, Any] = {"match": {"macaddress": nic.mac}, "set-name": name}
    if network is None:
        return {**card, "dhcp4": True}
    card["mtu"] = network.spec.mtu
    gateways = {ip_interface(g).version: ip_interface(g).ip for g in network.status.gateways}
    resolvers: list[str] = list(network.spec.dns)
    for text in nic.addresses:
        address = ip_address(text)
        subnet = next(
            (ip_network(s) for s in network.spec.subnets if address in ip_network(s)), None
        )
        if subnet is None:
            continue
        card.setdefault("addresses", []).append(f"{address}/{subnet.prefixlen}")
        if (gateway := gateways.get(address.version)) is not None:
            card[f"gateway{address.version}"] = str(gateway)
            resolvers += [] if network.spec.dns else [str(gateway)]
    if resolvers:
        card["nameservers"] = {"addresses": resolvers}
    return card
