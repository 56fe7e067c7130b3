"""What a running domain uses, as libvirt counts it; blocking, run by `Connection.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trivet.contracts.compute.stats import DiskCounters, GuestStats, NicCounters
from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_devices import devices_of
from trivet.plugins.compute.libvirt_domains import find, record_of

if TYPE_CHECKING:
    import libvirt

BALLOON_PERIOD_S = 5


def stats(connection: libvirt.virConnect, id_: ResourceId) -> GuestStats:
    """The counters of a domain, with disks by their names and cards by their MACs."""
    import libvirt

    domain = find(connection, id_)
    record = record_of(domain)
    if record is None or not domain.isActive():
        raise Refused(CONFLICT, f"{id_} does not run: it uses nothing")
    # The guest's balloon driver tells its side from the first time on that it is asked for it.
    domain.setMemoryStatsPeriod(BALLOON_PERIOD_S, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    wanted = (
        libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
        | libvirt.VIR_DOMAIN_STATS_BALLOON
        | libvirt.VIR_DOMAIN_STATS_VCPU
        | libvirt.VIR_DOMAIN_STATS_BLOCK
        | libvirt.VIR_DOMAIN_STATS_INTERFACE
    )
    found = connection.domainListGetStats([domain], wanted, 0)
    disks, nics = devices_of(domain.XMLDesc(0), record[0])
    names = {disk.target: disk.name for disk in disks}
    told = dict(found[0][1]) if found else {}
    # Without a cgroup that counts processor time, libvirt tells it here alone, from /proc.
    told.setdefault("cpu.time", domain.info()[4])
    return guest_stats(told, names, tuple(nic.name for nic in nics))


def guest_stats(
    told: dict[str, Any], names: dict[str | None, str], macs: tuple[str, ...]
) -> GuestStats:
    """libvirt's flat table in our words. `names` are the disks' by their targets; cards come in
    the order of `macs`, and count from the host's side: what the host received, the guest sent."""
    blocks = [f"block.{i}" for i in range(told.get("block.count", 0))]
    return GuestStats(
        cpu_ns=told.get("cpu.time", 0),
        vcpus=told.get("vcpu.current", 0),
        memory_kib=told.get("balloon.current", 0),
        host_memory_kib=told.get("balloon.rss"),
        unused_kib=told.get("balloon.unused"),
        available_kib=told.get("balloon.usable"),
        disks=tuple(
            DiskCounters(
                name=names[told.get(f"{block}.name")],
                read_bytes=told.get(f"{block}.rd.bytes", 0),
                read_requests=told.get(f"{block}.rd.reqs", 0),
                written_bytes=told.get(f"{block}.wr.bytes", 0),
                write_requests=told.get(f"{block}.wr.reqs", 0),
            )
            for block in blocks
            if told.get(f"{block}.name") in names
        ),
        nics=tuple(
            NicCounters(
                mac=mac,
                received_bytes=told.get(f"net.{i}.tx.bytes", 0),
                received_packets=told.get(f"net.{i}.tx.pkts", 0),
                sent_bytes=told.get(f"net.{i}.rx.bytes", 0),
                sent_packets=told.get(f"net.{i}.rx.pkts", 0),
            )
            for i, mac in enumerate(macs)
        ),
    )
