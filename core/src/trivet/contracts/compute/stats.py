"""What a running guest uses: counters since its start, and its memory now.

A small Protocol beside `Hypervisor`: a driver that has it can tell. Counters only grow in a run;
whoever wants rates takes two looks. Nothing of this enters the store.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.model import Model, ResourceId


class DiskCounters(Model):
    """Of one disk, by its name."""

    name: str
    read_bytes: int = 0
    read_requests: int = 0
    written_bytes: int = 0
    write_requests: int = 0


class NicCounters(Model):
    """Of one card, by its MAC: as the guest sees it, so `received` went into the guest."""

    mac: str
    received_bytes: int = 0
    received_packets: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0


class GuestStats(Model):
    """`cpu_ns`: processor time used, over all vcpus (nanoseconds). Memory in KiB: what the guest
    has now, what the host spends on it, and, where its balloon driver tells, what is unused and
    what it could give without swapping."""

    cpu_ns: int
    vcpus: int
    memory_kib: int
    host_memory_kib: int | None = None
    unused_kib: int | None = None
    available_kib: int | None = None
    disks: tuple[DiskCounters, ...] = ()
    nics: tuple[NicCounters, ...] = ()


@runtime_checkable
class Statistics(Protocol):
    """Tells what running guests use."""

    async def stats(self, id_: ResourceId) -> GuestStats:
        """Of a running guest. An unknown one is `Refused(NOT_FOUND)`, one that does not run
        `Refused(CONFLICT)`."""
        ...
