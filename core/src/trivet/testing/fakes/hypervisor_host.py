"""What runs on a pretended node, whichever driver looks at it: guests outlive their driver."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trivet.contracts.compute.hypervisor import DomainDisk, DomainEvent, DomainSpec
from trivet.contracts.compute.seed import Seed
from trivet.contracts.compute.vm import Power
from trivet.contracts.model import ResourceId
from trivet.testing.fakes.guest_agent import FakeAgent
from trivet.testing.fakes.guest_console import FakeLine, FakeScreen

if TYPE_CHECKING:
    from trivet.testing.fakes.hypervisor import FakeHypervisor


@dataclass
class FakeDomain:
    """One domain: what is defined for the next start, and what runs. `shown` are the sizes that
    the guest was told its disks have grown to. Somebody else changed how the guest gets its
    processors (`tampered`), or what it starts with (`altered`). `uses_mib` is what its balloon
    leaves it, `needs_mib` what it works with."""

    defined: DomainSpec
    running: DomainSpec | None = None
    started_with: tuple[DomainDisk, ...] = ()
    power: Power = Power.STOPPED
    reason: str = "unknown"
    ready: bool = False
    boots: int = 0
    console: bytes = b""
    shown: dict[str, int] = field(default_factory=dict)
    looks: int = 0
    tampered: bool = False
    altered: bool = False
    uses_mib: int = 0
    needs_mib: int = 64
    clock: asyncio.TimerHandle | None = field(default=None, repr=False)
    line: FakeLine | None = field(default=None, repr=False)
    screen: FakeScreen | None = field(default=None, repr=False)
    agent: FakeAgent = field(default_factory=FakeAgent, repr=False)

    def show(self, data: bytes) -> None:
        """The console shows something, to the log and to whoever looks."""
        if self.line is not None:
            self.line.write(data)
        else:
            self.record(data)

    def record(self, data: bytes) -> None:
        """Into the console's log."""
        self.console += data

    def forget_clock(self) -> None:
        """What was about to happen in the guest does not happen any more."""
        if self.clock is not None:
            self.clock.cancel()
        self.clock = None

    def end(self, reason: str) -> None:
        """It does not run any more."""
        self.forget_clock()
        if self.line is not None:
            self.line.close()
        if self.screen is not None:
            self.screen.close()
        self.line, self.screen = None, None
        self.agent.end()
        self.running, self.ready = None, False
        self.power, self.reason = Power.STOPPED, reason


@dataclass
class FakeHost:
    """What runs on a node, whichever driver looks at it. `foreign` are names of domains that
    somebody else runs; `away` is a hypervisor that does not answer; `sizes` are those of disks'
    exports, where a test says them; `available_mib` is what the machine has to spare."""

    domains: dict[ResourceId, FakeDomain] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    seeds: dict[ResourceId, Seed] = field(default_factory=dict)
    sockets: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    away: bool = False
    available_mib: int = 16384
    defines: int = 0
    drivers: list[FakeHypervisor] = field(default_factory=list, repr=False)

    def crash(self, id_: ResourceId) -> None:
        """The guest's process dies."""
        self._end(id_, "crashed")

    def power_off(self, id_: ResourceId) -> None:
        """The guest powers itself off, from inside."""
        self._end(id_, "shutdown")

    def io_error(self, id_: ResourceId) -> None:
        """A disk's write fails: the guest is stopped where it is."""
        domain = self.domains[id_]
        domain.power, domain.reason = Power.PAUSED, "io_error"
        self.tell(id_)

    def come_back(self) -> None:
        """The hypervisor answers again; drivers tell what they now see."""
        self.away = False
        for id_ in self.domains:
            self.tell(id_)

    def tell(self, id_: ResourceId) -> None:
        """Tell all drivers how a domain is; while away nobody hears."""
        domain = self.domains[id_]
        if not self.away:
            event = DomainEvent(id=id_, power=domain.power, reason=domain.reason)
            for driver in self.drivers:
                driver.hear(event)

    def _end(self, id_: ResourceId, reason: str) -> None:
        self.domains[id_].end(reason)
        self.tell(id_)


HOSTS: dict[Path, FakeHost] = {}


def fake_host(state_dir: Path) -> FakeHost:
    """The host behind drivers with this state folder."""
    return HOSTS.setdefault(state_dir, FakeHost())
