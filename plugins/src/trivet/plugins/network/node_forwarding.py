"""The node's own part in leading guests outside, done so that it can be undone.

A node forwards packets only while a gateway needs it: each sysctl that is changed is recorded
with its old value first, and gets that back with the last gateway. IPv6 forwarding would make
the node forget its routers (it then ignores router advertisements), so its interfaces are
told to go on listening before. A firewall of somebody else that drops what is forwarded by
policy (Docker's, ufw's) gets rules that let our transits through, marked as ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trivet.contracts.model import Model
from trivet.plugins.network.command import attempt, run
from trivet.plugins.network.netlink import write_sysctl
from trivet.plugins.network.records import read_record, write_record

V4_FORWARD = "net/ipv4/ip_forward"
V4_REDIRECTS = "net/ipv4/conf/all/accept_redirects"
V6_FORWARD = "net/ipv6/conf/all/forwarding"


class Changed(Model):
    """Sysctls that were changed, in order, with the values they had."""

    values: tuple[tuple[str, str], ...] = ()


class NodeForwarding:
    """Turns forwarding on and back; `record` is the file with the old values."""

    def __init__(self, record: Path, prefix: str) -> None:
        self._record = record
        self._prefix = prefix
        self._comment = f"{prefix}_forward"

    async def turn_on(self, *, v6: bool) -> None:
        """Let the node forward, IPv6 too if asked; what does already is left alone."""
        # Turning IPv4 forwarding on and off resets this one: kept, it comes back last.
        if _read(V4_FORWARD) == "0":
            self._change(V4_REDIRECTS, "0", always=True)
            self._change(V4_FORWARD, "1")
        if v6 and _read(V6_FORWARD) == "0":
            for key in _interfaces_that_hear_routers():
                self._change(key, "2")
            self._change(V6_FORWARD, "1")
        await self._pass_foreign_firewalls()

    def on(self) -> bool:
        """Whether the node forwards IPv4 now."""
        return _read(V4_FORWARD) == "1"

    async def turn_back(self) -> None:
        """Give every sysctl its old value, and take our rules out of foreign chains."""
        changed = read_record(self._record, Changed)
        for key, value in reversed(changed.values if changed else ()):
            write_sysctl(key, value)
        self._record.unlink(missing_ok=True)
        for chain in await _foreign_forward_chains(self._prefix, dropping=False):
            for handle in await self._our_rules(chain):
                await attempt("nft", "delete", "rule", *chain, "handle", str(handle))

    def _change(self, key: str, value: str, *, always: bool = False) -> None:
        present = _read(key)
        if present is None or (present == value and not always):
            return
        changed = read_record(self._record, Changed) or Changed()
        if key not in dict(changed.values):
            write_record(self._record, Changed(values=(*changed.values, (key, present))))
        write_sysctl(key, value)

    async def _pass_foreign_firewalls(self) -> None:
        for chain in await _foreign_forward_chains(self._prefix, dropping=True):
            if await self._our_rules(chain):
                continue
            for match in (
                ("iifname", f'"{self._prefix}x*"'),
                ("oifname", f'"{self._prefix}x*"'),
                ("iifname", f'"{self._prefix}br*"', "oifname", f'"{self._prefix}br*"'),
            ):
                comment = ("comment", f'"{self._comment}"')
                await run("nft", "insert", "rule", *chain, *match, "counter", "accept", *comment)

    async def _our_rules(self, chain: tuple[str, str, str]) -> list[int]:
        listed = await attempt("nft", "-j", "-a", "list", "chain", *chain)
        return [
            rule["handle"]
            for rule in _of_type(listed.out, "rule")
            if rule.get("comment") == self._comment
        ]


async def _foreign_forward_chains(prefix: str, *, dropping: bool) -> list[tuple[str, str, str]]:
    listed = await attempt("nft", "-j", "list", "chains")
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in _of_type(listed.out, "chain")
        if chain.get("hook") == "forward"
        and chain["family"] in ("ip", "ip6", "inet")
        and not chain["table"].startswith(f"{prefix}_")
        and (chain.get("policy") == "drop" or not dropping)
    ]


def _of_type(listed: str, type_: str) -> Iterable[dict[str, Any]]:
    items = json.loads(listed)["nftables"] if listed.strip() else []
    return [item[type_] for item in items if type_ in item]


def _interfaces_that_hear_routers() -> list[str]:
    return [
        f"net/ipv6/conf/{folder.name}/accept_ra"
        for folder in sorted(Path("/proc/sys/net/ipv6/conf").glob("*"))
        if folder.name != "all" and _read(f"net/ipv6/conf/{folder.name}/accept_ra") == "1"
    ]


def _read(key: str) -> str | None:
    path = Path("/proc/sys") / key
    return path.read_text().strip() if path.exists() else None
