"""Which addresses are behind a security group: those of its ports, on whatever node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from trivet.contracts.network.endpoints.node_members import GroupName
from trivet.contracts.network.port import Port
from trivet.contracts.security.firewall import AddressList
from trivet.contracts.security.group import GROUP_PREFIX


def members(ports: Iterable[Port], groups: Iterable[GroupName]) -> tuple[AddressList, ...]:
    """A list for each of `groups`; a group that nobody stands behind has an empty one."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for port in ports:
        if port.meta.deleting_at is None:
            for name in port.spec.security_groups:
                found[port.meta.project or "", name].update(port.status.addresses)
    return tuple(
        AddressList(
            project=group.project,
            name=f"{GROUP_PREFIX}{group.name}",
            addresses=tuple(sorted(found[group.project, group.name], key=_order)),
        )
        for group in groups
    )


@lru_cache(maxsize=65536)
def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)
