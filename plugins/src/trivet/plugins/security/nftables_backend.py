"""The firewall at a node's ports, by nftables.

This module talks to `nft`; what it says is computed in `nftables_render`, and what it hears is
understood in `nftables_readback`. The whole ruleset goes in one transaction, as text: the
kernel has the old rules or the new ones, never a part. Connections that are under way survive,
since they live in conntrack, whose zones are kept (`nftables_slots`). `open` puts the tables
there closed if there are none, and leaves standing ones alone, so that a restart of the service
is not felt by any guest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from dataclasses import replace
from typing import Any, ClassVar, Literal

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, Fatal, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model
from trivet.contracts.security.firewall import (
    FirewallBackend,
    FirewallState,
    PortCounters,
    Ruleset,
)
from trivet.plugins import kernel_probe
from trivet.plugins.security.nftables_readback import (
    Listing,
    counters_of,
    read,
    slots_of,
    state_of,
)
from trivet.plugins.security.nftables_render import Mode, Names, judge_family, remove_text, render
from trivet.plugins.security.nftables_slots import Slots, assign_slots

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 30.0


class NftablesConfig(Model):
    """`mode`: how connections are tracked; `auto` asks the kernel. `netns`: the network
    namespace that has the bridges, if it is not the service's own."""

    mode: Literal["auto", "bridge-conntrack", "br-netfilter"] = "auto"
    netns: str | None = None


class NftablesFirewall:
    """A firewall backend on nftables."""

    name: ClassVar[str] = "nftables"
    Config: ClassVar[type[Model]] = NftablesConfig

    def __init__(self, context: DriverContext, config: NftablesConfig) -> None:
        self._prefix = context.prefix
        self._names = Names(context.prefix)
        self._netns = config.netns
        self._wanted_mode = config.mode
        self._mode = Mode.BR_NETFILTER
        self._slots = Slots()
        self._lock = asyncio.Lock()

    @classmethod
    async def probe(cls) -> Probe:
        """Usable where nft rules can be made, and bridged connections be tracked somehow."""
        complaint = await kernel_probe.nftables_works()
        if complaint is not None:
            return Probe(usable=False, reason=f"nft can't make rules here: {complaint}")
        if await kernel_probe.native_bridge_conntrack():
            return Probe(usable=True, reason="the bridge tracks connections itself", score=20)
        if kernel_probe.br_netfilter_loaded() or shutil.which("modprobe"):
            return Probe(usable=True, reason="connections are tracked by br_netfilter", score=10)
        return Probe(usable=False, reason="neither nft bridge conntrack nor br_netfilter is here")

    async def open(self) -> None:
        """Find the mode; close every port if no tables stand yet."""
        if self._wanted_mode == "auto":
            native = await kernel_probe.native_bridge_conntrack()
            self._mode = Mode.NATIVE if native else Mode.BR_NETFILTER
        else:
            self._mode = Mode(self._wanted_mode)
        if self._mode is Mode.BR_NETFILTER and not kernel_probe.br_netfilter_loaded():
            await self._run("modprobe", "br_netfilter")
        listing = await self._listing()
        self._slots = slots_of(listing)
        if not listing.present:
            await self.apply(Ruleset())

    async def close(self) -> None:
        """Nothing is held; the rules stay."""

    async def apply(self, ruleset: Ruleset) -> None:
        """Replace all rules, in one transaction."""
        async with self._lock:
            slots = assign_slots(ruleset, self._slots)
            text = render(ruleset, slots, self._mode, self._prefix)
            await self._nft("-f", "-", text=text)
            self._slots = slots

    async def state(self) -> FirewallState:
        """What the kernel holds; a port whose rules were tampered with is not named."""
        async with self._lock:
            return state_of(await self._listing(), self._mode)

    async def counters(self) -> tuple[PortCounters, ...]:
        """What was passed and dropped at each port since the last replacement."""
        async with self._lock:
            slots = slots_of(await self._listing())
            objects: list[Any] = []
            for family in {"bridge", judge_family(self._mode)}:
                objects += await self._list("counters", family)
        return counters_of(objects, replace(slots))

    async def clear(self) -> None:
        """Remove the tables."""
        async with self._lock:
            await self._nft("-f", "-", text=remove_text(self._prefix))
            self._slots = Slots()

    async def _listing(self) -> Listing:
        objects = [*await self._list("table", "bridge"), *await self._list("table", "inet")]
        return read(objects, self._prefix)

    async def _list(self, what: str, family: str) -> list[Any]:
        """The objects in a table of ours; none where there is no table."""
        tables = json.loads(await self._nft("-j", "list", "tables", family))["nftables"]
        if not any(t.get("table", {}).get("name") == self._names.table for t in tables):
            return []
        table = ("table",) if what == "counters" else ()
        output = await self._nft("-j", "list", what, *table, family, self._names.table)
        return list(json.loads(output)["nftables"])

    async def _nft(self, *arguments: str, text: str = "") -> str:
        inside = ("ip", "netns", "exec", self._netns) if self._netns else ()
        return await self._run(*inside, "nft", *arguments, text=text)

    async def _run(self, *command: str, text: str = "") -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Fatal(DRIVER_FAILED, f"{command[0]} can't be run: {error}") from error
        try:
            output, complaint = await asyncio.wait_for(
                process.communicate(text.encode()), NFT_TIMEOUT_S
            )
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise Retry(DRIVER_FAILED, "nft did not end in time", retry_after_s=5.0) from error
        if process.returncode != 0:
            first = (complaint.decode(errors="replace").strip().splitlines() or ["no reason"])[0]
            log.error("%s: %s", " ".join(command[-4:]), complaint.decode(errors="replace")[:2000])
            raise Fatal(DRIVER_FAILED, f"nft refused: {first}", hint="see the service's log")
        return output.decode()


@hookimpl
def trivet_firewall_backends() -> list[type[FirewallBackend]]:
    """The built-in firewall."""
    return [NftablesFirewall]
