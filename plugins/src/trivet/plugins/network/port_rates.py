"""Bounds on a port's traffic by the kernel's own traffic control.

What goes to the guest leaves the node through the tap: a token bucket (tbf) there bounds it.
What comes from the guest is led through an ifb link of the port's own, with a bucket, before
the bridge and the firewall see it; it arrives there as from the tap. Kernels differ in what
they have, so it is tried once, when it is first needed.

The ifb of tap `<prefix>p<10 hex>` is `<prefix>i<10 hex>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.contracts.network.port import PortQos, Rate
from trivet.plugins.network.command import attempt, run
from trivet.plugins.network.netlink import Link, Netlink, write_sysctl

LATENCY_MS = 50
BURST_MIN_BYTES = 65536

INGRESS_OF = "parent ffff: protocol all prio 1 u32 match u32 0 0"


class PortRates:
    """Puts bounds on taps and takes them off."""

    def __init__(self, netlink: Netlink, prefix: str) -> None:
        self._netlink = netlink
        self._prefix = prefix
        self._lacking: str | None = None

    async def apply(self, device: str, qos: PortQos, links: Mapping[str, Link]) -> None:
        """Make exactly these the bounds of the tap, without a cut where some were there; `links`
        are the switch's by now. Raises `Refused(NOT_SUPPORTED)` where the kernel lacks what it
        takes."""
        if not qos.bounded:
            await self._clear(device, links)
            return
        await self._need_kernel()
        if qos.ingress is not None:
            await run("tc", "qdisc", "replace", "dev", device, *_bucket(qos.ingress))
        else:
            await attempt("tc", "qdisc", "delete", "dev", device, "root")
        if qos.egress is not None:
            await self._bound_egress(device, qos.egress)
        else:
            await self._free_egress(device)

    async def remove(self, device: str) -> None:
        """Take away what belongs to a tap that goes."""
        await self._delete_link(self._ifb(device))

    async def sweep(self, taps: set[str]) -> None:
        """Take away what belongs to no tap."""
        for name, link in (await self._netlink.links(f"{self._prefix}i")).items():
            if link.kind == "ifb" and name not in {self._ifb(t) for t in taps}:
                await self._netlink.delete(link.index)

    async def wrong(self, wanted: dict[str, PortQos]) -> set[str]:
        """The taps whose bounds are not as they were made."""
        if not any(qos.bounded for qos in wanted.values()):
            return set()
        listed: list[dict[str, Any]] = json.loads(await run("tc", "-j", "qdisc", "show"))
        rates = {q["dev"]: q["options"]["rate"] for q in listed if q["kind"] == "tbf"}
        led = {q["dev"] for q in listed if q["kind"] == "ingress"}
        return {
            device
            for device, qos in wanted.items()
            if not _holds(qos.ingress, rates.get(device))
            or not _holds(qos.egress, rates.get(self._ifb(device)))
            or (qos.egress is not None and device not in led)
        }

    async def _bound_egress(self, device: str, rate: Rate) -> None:
        ifb = self._ifb(device)
        await self._netlink.add(ifb, "ifb")
        write_sysctl(f"net/ipv6/conf/{ifb}/disable_ipv6", 1)
        link = (await self._netlink.links(ifb))[ifb]
        await self._netlink.set(link.index, state="up")
        await run("tc", "qdisc", "replace", "dev", ifb, *_bucket(rate))
        shown = json.loads(await run("tc", "-j", "qdisc", "show", "dev", device))
        if not any(q["kind"] == "ingress" for q in shown):
            await run("tc", "qdisc", "add", "dev", device, "ingress")
        await run("tc", "filter", "replace", "dev", device, *_redirect(ifb))

    async def _free_egress(self, device: str) -> None:
        await attempt("tc", "filter", "delete", "dev", device, "parent", "ffff:", "prio", "1")
        await self._delete_link(self._ifb(device))

    async def _clear(self, device: str, links: Mapping[str, Link]) -> None:
        """Take all bounds off; a tap that has none costs nothing."""
        tap = links.get(device)
        if tap is not None and tap.queueing == "tbf":
            await attempt("tc", "qdisc", "delete", "dev", device, "root")
        if self._ifb(device) in links:
            await self._free_egress(device)

    async def _delete_link(self, name: str) -> None:
        link = (await self._netlink.links(name)).get(name)
        if link is not None:
            await self._netlink.delete(link.index)

    async def _need_kernel(self) -> None:
        if self._lacking is None:
            self._lacking = await self._try()
        if self._lacking:
            hint = "load the modules sch_tbf, sch_ingress, cls_u32, act_mirred and ifb"
            raise Refused(NOT_SUPPORTED, f"no bounds on ports: {self._lacking}", hint=hint)

    async def _try(self) -> str:
        """What this kernel lacks ('': nothing), tried on a link of its own."""
        name = f"{self._prefix}itry"
        steps = (
            ("ip", "link", "add", name, "type", "ifb"),
            ("tc", "qdisc", "replace", "dev", name, *_bucket(Rate(bytes_per_s=1_000_000))),
            ("tc", "qdisc", "add", "dev", name, "ingress"),
            ("tc", "filter", "replace", "dev", name, *_redirect(name)),
        )
        try:
            for step in steps:
                done = await attempt(*step)
                if done.code != 0:
                    return f"`{' '.join(step[:6])}`: {done.err.strip()[:120]}"
        finally:
            await attempt("ip", "link", "delete", name)
        return ""

    def _ifb(self, device: str) -> str:
        return f"{self._prefix}i{device.removeprefix(f'{self._prefix}p')}"


def _bucket(rate: Rate) -> Iterator[str]:
    burst = rate.burst_bytes or max(BURST_MIN_BYTES, rate.bytes_per_s // 50)
    # `bps` is bytes a second to tc; what waits longer than the latency is dropped.
    text = f"root handle 1: tbf rate {rate.bytes_per_s}bps burst {burst} latency {LATENCY_MS}ms"
    yield from text.split()


def _redirect(ifb: str) -> list[str]:
    return [*INGRESS_OF.split(), *f"action mirred egress redirect dev {ifb}".split()]


def _holds(rate: Rate | None, seen: int | None) -> bool:
    if rate is None or seen is None:
        return rate is None and seen is None
    # The kernel keeps rates in ticks, which are not exact.
    return abs(seen - rate.bytes_per_s) <= max(8, rate.bytes_per_s // 100)
