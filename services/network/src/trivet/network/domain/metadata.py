"""What a guest reads at 169.254.169.254: EC2's and OpenStack's trees, as pure answers.

A tree is a mapping of paths to texts; a path that is a folder lists what is in it, one a line,
with '/' behind folders, as both clouds do. Who asks was settled before: here is only what the
asker's own VM and port are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from trivet.contracts.compute.endpoints.vm_instance_data import InstanceData
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port

EC2_VERSIONS = ("1.0", "2009-04-04", "2016-09-02", "2021-03-23", "latest")
OPENSTACK_VERSIONS = ("2012-08-10", "2015-10-15", "2018-08-27", "latest")


@dataclass(frozen=True)
class Asker:
    """Whose data it is: a VM, and the port by which it asks."""

    vm: InstanceData
    port: Port
    network: Network


def look_up(path: str, asker: Asker) -> str | None:
    """The text at `path` ('/latest/meta-data/hostname'); None: there is nothing."""
    parts = [p for p in path.split("/") if p]
    if not parts:
        return _listing((*EC2_VERSIONS, "openstack/"))
    if parts[0] == "openstack":
        if len(parts) == 1:
            return _listing(OPENSTACK_VERSIONS)
        return _find(_openstack(asker), parts[2:]) if parts[1] in OPENSTACK_VERSIONS else None
    return _find(_ec2(asker), parts[1:]) if parts[0] in EC2_VERSIONS else None


def _find(tree: Mapping[str, str], parts: list[str]) -> str | None:
    path = "/".join(parts)
    if path in tree:
        return tree[path]
    below = f"{path}/" if path else ""
    inside = [p.removeprefix(below) for p in tree if p.startswith(below)]
    if not inside:
        return None
    names = {p.partition("/")[0] + ("/" if "/" in p else "") for p in inside}
    return _listing(tuple(sorted(names)))


def _listing(names: tuple[str, ...]) -> str:
    return "\n".join(names)


def _addresses(asker: Asker, version: int) -> list[str]:
    return [a for a in asker.port.status.addresses if ip_address(a).version == version]


def _hostname(asker: Asker) -> str:
    return asker.port.spec.hostname or asker.vm.name


def _ec2(asker: Asker) -> Mapping[str, str]:
    tree = {f"meta-data/{name}": text for name, text in _ec2_meta(asker)}
    if asker.vm.user_data is not None:
        tree["user-data"] = asker.vm.user_data
    return tree


def _ec2_meta(asker: Asker) -> Iterator[tuple[str, str]]:
    mac = asker.port.status.mac or ""
    yield "instance-id", asker.vm.id
    yield "instance-type", "trivet"
    for name in ("hostname", "local-hostname"):
        yield name, _hostname(asker)
    yield "mac", mac
    yield "placement/availability-zone", asker.vm.node or ""
    card = f"network/interfaces/macs/{mac}"
    yield f"{card}/mac", mac
    yield f"{card}/device-number", "0"
    for version, address, several, subnet in (
        (4, "local-ipv4", "local-ipv4s", "subnet-ipv4-cidr-block"),
        (6, "ipv6", "ipv6s", "subnet-ipv6-cidr-blocks"),
    ):
        if own := _addresses(asker, version):
            yield address, own[0]
            yield f"{card}/{several}", "\n".join(own)
            ranges = [s for s in asker.network.spec.subnets if ip_network(s).version == version]
            yield f"{card}/{subnet}", "\n".join(ranges)
    for number, key in enumerate(asker.vm.ssh_keys):
        yield f"public-keys/{number}/openssh-key", key


def _openstack(asker: Asker) -> Mapping[str, str]:
    keys = {f"key-{number}": key for number, key in enumerate(asker.vm.ssh_keys)}
    meta = {
        "uuid": asker.vm.id,
        "name": asker.vm.name,
        "hostname": _hostname(asker),
        "project_id": asker.vm.project,
        "availability_zone": asker.vm.node or "",
        "launch_index": 0,
        "meta": dict(asker.vm.labels),
        "public_keys": keys,
        "keys": [{"name": n, "type": "ssh", "data": k} for n, k in keys.items()],
    }
    tree = {
        "meta_data.json": json.dumps(meta),
        "network_data.json": json.dumps(_network_data(asker)),
        "vendor_data.json": "{}",
    }
    if asker.vm.user_data is not None:
        tree["user_data"] = asker.vm.user_data
    return tree


def _network_data(asker: Asker) -> Mapping[str, object]:
    status = asker.port.status
    link = {
        "id": asker.port.meta.name,
        "type": "phy",
        "ethernet_mac_address": status.mac,
        "mtu": status.mtu,
    }
    # The addresses are leases: a guest that asks by DHCP gets the same, with routes and DNS.
    networks = [
        {"id": f"{asker.network.meta.name}-{v}", "link": link["id"], "type": kind}
        for v, kind in ((4, "ipv4_dhcp"), (6, "ipv6_dhcp"))
        if _addresses(asker, v)
    ]
    return {"links": [link], "networks": networks, "services": []}
