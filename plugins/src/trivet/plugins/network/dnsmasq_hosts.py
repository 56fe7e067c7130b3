"""What dnsmasq's hosts file says, so that an address may go from one guest to another.

dnsmasq remembers for as long as it runs to whom it leased an address, also after that guest is
gone from its file, and gives the address to nobody else: the next guest of the address would get
none for the rest of the lease. It gives up a lease only for a guest whose own line names the MAC
that had it. So each line names, after its guest, those that had the address before; who they were
is kept beside the process that remembers them (`Given`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

from trivet.contracts.network.gateway_driver import DhcpHost, DhcpNetwork
from trivet.plugins.network.records import write_file

LEASE = "12h"
FORMER_MAX = 16

Given = Mapping[str, tuple[str, ...]]
"""By IPv4 address, the MACs that could lease it since the process began, in order."""


def given_now(given: Given, hosts: Iterable[DhcpHost]) -> dict[str, tuple[str, ...]]:
    """`given`, after these hosts could lease their addresses."""
    after = dict(given)
    for host in hosts:
        for address in _v4(host) if host.leased else ():
            had = after.get(address, ())
            after[address] = had if host.mac in had else (*had, host.mac)
    return after


def former(given: Given, hosts: Iterable[DhcpHost]) -> dict[str, tuple[str, ...]] | None:
    """By MAC of a host, the others that had its address before; None where that can't be said in
    the file: one of them is a guest with another address now, or there are too many."""
    present = {host.mac: host for host in hosts}
    found = {
        mac: tuple(m for address in _v4(host) for m in given.get(address, ()) if m != mac)
        for mac, host in present.items()
        if host.leased
    }
    for macs in found.values():
        if len(macs) > FORMER_MAX or any(mac in present for mac in macs):
            return None
    return found


def host_line(host: DhcpHost, others: tuple[str, ...] = ()) -> str:
    """A guest's line in the hosts file: its MAC, those before it, its addresses, its name; one of
    another node's is not to be answered at all, not even that its lease is unknown."""
    if not host.leased:
        return f"{host.mac},ignore"
    places = [a if ":" not in a else f"[{a}]" for a in host.addresses]
    return ",".join([host.mac, *others, *places, host.hostname, LEASE])


def write_hosts(folder: Path, network: DhcpNetwork, others: Given) -> None:
    """Write the files of leases and of names; `others` as `former` tells them."""
    hosts = sorted(network.hosts, key=lambda h: h.mac)
    lines = [host_line(host, others.get(host.mac, ())) for host in hosts]
    # The last line that names a MAC is the one that counts: who is gone is not answered.
    lines += sorted({f"{mac},ignore" for macs in others.values() for mac in macs})
    write_file(folder / "hosts", "".join(f"{line}\n" for line in lines))
    names = [(a, h.hostname) for h in hosts for a in h.addresses]
    write_file(folder / "names", "".join(f"{address} {name}\n" for address, name in names))
    folder.chmod(0o755)
    for name in ("hosts", "names"):
        (folder / name).chmod(0o644)


def _v4(host: DhcpHost) -> list[str]:
    # An IPv6 address comes of its guest's MAC, and goes to nobody else.
    return [address for address in host.addresses if ip_address(address).version == 4]
