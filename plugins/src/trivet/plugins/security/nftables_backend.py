"""The firewall at a node's ports, by nftables.

This module talks to `nft`; what it says is computed in `nftables_render`, and what it hears is
understood in `nftables_readback`. A change is one transaction: the kernel has the old rules or
the new ones, never a part. While it is known what stands (nobody else touched it:
`nftables_watch`), only what differs is sent, small changes in the kernel's own words
(`nftables_netlink`); else everything is replaced, as text. Connections that are under way survive,
since they live in conntrack, whose zones are kept (`nftables_slots`). `open` puts the tables
there closed if there are none, and leaves standing ones alone, so that a restart of the service
is not felt by any guest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, Fatal, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model
from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import (
    Connection,
    FirewallBackend,
    FirewallState,
    LogEntry,
    PortCounters,
    RuleHits,
    Ruleset,
)
from trivet.plugins import kernel_probe
from trivet.plugins.network import namespaces
from trivet.plugins.security import (
    nftables_connections,
    nftables_log,
    nftables_netlink,
    nftables_watch,
)
from trivet.plugins.security.nftables_log import PacketLog
from trivet.plugins.security.nftables_log_reader import LogReader
from trivet.plugins.security.nftables_memory import PolicyMemory
from trivet.plugins.security.nftables_parts import Mode, Names, judge_family
from trivet.plugins.security.nftables_readback import (
    Listing,
    counters_of,
    hits_of,
    read,
    slots_of,
    state_of,
)
from trivet.plugins.security.nftables_render import Rendered, remove_text, render
from trivet.plugins.security.nftables_slots import Slots, assign_slots
from trivet.plugins.security.nftables_text import difference, replacement
from trivet.plugins.security.nftables_watch import RuleWatch

T = TypeVar("T")

log = logging.getLogger(__name__)

NFT_TIMEOUT_S = 30.0
BELIEVED_S = 600.0


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
        self._node = context.node
        self._prefix = context.prefix
        self._names = Names(context.prefix)
        self._netns = config.netns
        self._wanted_mode = config.mode
        self._mode = Mode.BR_NETFILTER
        self._slots = Slots()
        self._lock = asyncio.Lock()
        self._memory = PolicyMemory()
        # What stands in the kernel, as far as nobody else has touched it since.
        self._standing: tuple[Ruleset, Rendered] | None = None
        self._looked_at = 0.0
        self._keys: Mapping[str, NamedRule] = {}
        self._watch: RuleWatch | None = None
        self._log: PacketLog | None = None
        self._link: socket.socket | None = None

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
        group = int(self._names.log_group)
        self._link = await self._within(nftables_netlink.opened)
        self._watch = RuleWatch(await self._within(nftables_watch.opened), self._names.table)
        self._watch.ours(self._link.getsockname()[0])
        self._log = PacketLog(await self._within(partial(nftables_log.opened, group)))
        listing = await self._listing()
        self._slots = slots_of(listing)
        if not listing.present:
            await self.apply(Ruleset())

    async def close(self) -> None:
        """The rules stay; only the watching ends."""
        for held in (self._watch, self._log, self._link):
            if held is not None:
                held.close()
        self._watch = self._log = self._link = None

    async def apply(self, ruleset: Ruleset) -> None:
        """Make the rules these: by what differs where what stands is known, else wholly."""
        async with self._lock:
            slots = assign_slots(ruleset, self._slots)
            wanted = render(ruleset, slots, self._mode, self._prefix, self._memory)
            standing = self._undisturbed()
            self._standing = None
            if standing is None or not await self._change(standing[1], wanted):
                await self._nft("-f", "-", text=replacement(wanted.tables, self._names.table))
            self._standing = ruleset, wanted
            self._slots = slots
            self._keys = wanted.keys

    async def _change(self, before: Rendered, after: Rendered) -> bool:
        """Make what differs so; False: it has to be replaced wholly."""
        change = difference(before.tables, after.tables, self._names.table)
        if change is None:
            return False
        if not change.text:
            return True
        try:
            if self._link is not None:
                nftables_netlink.send(self._link, nftables_netlink.batch(change, self._names.table))
                return True
        except nftables_netlink.NotSimple:
            log.debug("the change takes nft")
        except Fatal as error:
            log.warning("%s: all rules are made anew", error)
            return False
        try:
            await self._nft("-f", "-", text=change.text)
        except Fatal:
            log.warning("the difference was refused: all rules are made anew")
            return False
        return True

    def _undisturbed(self) -> tuple[Ruleset, Rendered] | None:
        """What stands, unless somebody else may have touched it."""
        if self._watch is None:
            return None
        self._watch.read()
        return None if self._watch.disturbed.is_set() else self._standing

    def forget(self) -> None:
        """Know nothing of what stands: the next `apply` replaces everything."""
        self._standing = None

    async def connections(self) -> tuple[Connection, ...]:
        """The connections under way at this node's ports."""
        if self._netns:
            entries = await namespaces.inside(self._netns, nftables_connections.tracked)
        else:
            entries = await asyncio.to_thread(nftables_connections.tracked)
        ruleset = self._standing[0] if self._standing else Ruleset()
        return tuple(nftables_connections.connections(entries, ruleset, self._slots.zones))

    async def disturbed(self) -> str:
        """Wait until somebody else has changed these rules; who it was."""
        assert self._watch is not None, "disturbed before open"
        await self._watch.disturbed.wait()
        return self._watch.by

    async def state(self) -> FirewallState:
        """What the kernel holds; a port whose rules were tampered with is not named.

        While nobody else has touched the rules since the last `apply`, that is known without a
        look; one is taken from time to time (`BELIEVED_S`) all the same.
        """
        async with self._lock:
            standing, now = self._undisturbed(), asyncio.get_running_loop().time()
            if standing is not None and now - self._looked_at < BELIEVED_S:
                return _state_of_ruleset(standing[0], self._mode)
            if self._watch is not None:
                self._watch.disturbed.clear()
            state = state_of(await self._listing(), self._mode)
            self._looked_at = now
            if self._standing is not None and state != _state_of_ruleset(
                self._standing[0], self._mode
            ):
                self._standing = None
            return state

    async def counters(self) -> tuple[PortCounters, ...]:
        """What was passed and dropped at each port since its rules are there."""
        async with self._lock:
            return counters_of(await self._all_counters(), replace(self._slots))

    async def hits(self) -> tuple[RuleHits, ...]:
        """How often rules decided that are counted one by one."""
        async with self._lock:
            return hits_of(await self._all_counters(), self._keys)

    async def logged(self) -> tuple[LogEntry, ...]:
        """What rules with `log` told since the last call."""
        if self._log is None:
            return ()
        ruleset = self._standing[0] if self._standing else Ruleset()
        reader = LogReader(self._node, self._slots, self._keys, ruleset)
        entries = (reader.entry(seen) for seen in self._log.take())
        return tuple(entry for entry in entries if entry is not None)

    async def clear(self) -> None:
        """Remove the tables."""
        async with self._lock:
            self._standing = None
            await self._nft("-f", "-", text=remove_text(self._prefix))
            self._slots = Slots()

    async def _all_counters(self) -> list[Any]:
        objects: list[Any] = []
        for family in sorted({"bridge", judge_family(self._mode)}):
            objects += await self._list("counters", family)
        return objects

    async def _within(self, make: Callable[[], T]) -> T:
        return await namespaces.inside(self._netns, make) if self._netns else make()

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
                # A pipe that nobody reads may be closed before we write nothing into it.
                stdin=asyncio.subprocess.PIPE if text else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            if self._watch is not None:
                self._watch.ours(process.pid)
        except OSError as error:
            raise Fatal(DRIVER_FAILED, f"{command[0]} can't be run: {error}") from error
        try:
            output, complaint = await asyncio.wait_for(
                process.communicate(text.encode() or None), NFT_TIMEOUT_S
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


def _state_of_ruleset(ruleset: Ruleset, mode: Mode) -> FirewallState:
    return FirewallState(
        ports={b.port: b.generation for b in ruleset.ports},
        groups={g.id: g.generation for g in ruleset.groups},
        mode=mode.value,
    )


@hookimpl
def trivet_firewall_backends() -> list[type[FirewallBackend]]:
    """The built-in firewall."""
    return [NftablesFirewall]
