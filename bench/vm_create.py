"""From the API call to a guest that is READY, over the bare libvirt start of the same guest.

Both boot in turn in the same libvirt: ours with all that a VM has here (volume, port, firewall,
DHCP, records), the bare one from a file and with QEMU's own user network. The control plane's
share is measured apart, since a boot's noise hides it: from the call to the start of QEMU's
process, without what libvirt takes for that with the bare guest, and from READY on the console
to READY in the API.

`--trace` measures nothing: it draws who waited for whom in one create, from the services' traces.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree as ET

import libvirt

from bench.instance import Instance, instance
from bench.measure import Results, median, ms, percentile, say
from bench.waterfall import Collector, drawn
from trivet.client import Client
from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.host import processes
from trivet.host.hypervisor import libvirtd_of

ROUNDS = 7
WITHIN_S = 180.0
LOOK_S = 0.01
READY = b"READY"
SPEC = {"image": "tiny", "memory_mib": 128, "nics": [{"network": "default"}]}
BARE_NAME = "bench-bare"
FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class Ours:
    """One VM of ours: how long after the call what was seen, in seconds, and its domain as
    libvirt describes it."""

    runs_s: float
    shown_s: float
    told_s: float
    xml: str


@dataclass(frozen=True)
class Bare:
    """The same of a bare guest, after the call of libvirt."""

    runs_s: float
    shown_s: float


def _now() -> float:
    """Seconds since the machine's boot, as /proc counts the start of processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _until(what: str, look: Callable[[], FoundT | None]) -> FoundT:
    deadline = _now() + WITHIN_S
    while not (found := look()):
        if _now() > deadline:
            raise TimeoutError(f"not within {WITHIN_S:.0f} s: {what}")
        time.sleep(LOOK_S)
    return found


def _shows_ready(log: Path) -> bool:
    return log.exists() and READY in log.read_bytes()


def _started_at(id_: str) -> float | None:
    """When the process of that guest began; None before."""
    for pid in processes.pids():
        words = processes.arguments(pid)
        if words and "qemu-system" in words[0] and any(id_ in word for word in words):
            record = processes.record_of("qemu", pid)
            return record.started / os.sysconf("SC_CLK_TCK") if record else None
    return None


def ours(made: Instance, client: Client, hypervisor: libvirt.virConnect, name: str) -> Ours:
    """Create a VM, see it READY, delete it."""
    begun = _now()
    vm = client.vms.create(name, spec=SPEC)
    log = made.layout.state / "compute/libvirt/console" / f"{vm.meta.id}.log"
    started = _until("QEMU runs", lambda: _started_at(vm.meta.id))
    _until("the console says READY", lambda: _shows_ready(log))
    shown = _now()
    _until("the API says READY", lambda: client.vms.get(name).status.guest_ready)
    told = _now()
    domains = [d for d in hypervisor.listAllDomains() if vm.meta.id in d.XMLDesc()]
    xml = str(domains[0].XMLDesc())
    client.vms.delete(name)
    _until(f"{name} is gone", lambda: _is_gone(client, name))
    return Ours(started - begun, shown - begun, told - begun, xml)


def _is_gone(client: Client, name: str) -> bool:
    try:
        client.vms.get(name)
    except Refused as error:
        if error.code is not NOT_FOUND:
            raise
        return True
    return False


def bare_xml(xml: str, folder: Path, image: Path) -> str:
    """The same guest, with nothing of ours: a file for a disk, QEMU's user network."""
    domain = ET.fromstring(xml)
    for tag in ("metadata", "seclabel", "resource", "uuid"):
        for element in domain.findall(tag):
            domain.remove(element)
    domain.attrib.pop("id", None)
    name = domain.find("name")
    devices = domain.find("devices")
    assert name is not None
    assert devices is not None
    name.text = BARE_NAME
    ET.SubElement(domain, "uuid").text = str(uuid.uuid4())
    for tag in ("disk", "interface", "serial", "console", "channel", "graphics"):
        for element in devices.findall(tag):
            devices.remove(element)
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw", cache="none", discard="unmap")
    ET.SubElement(disk, "source", file=str(image))
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    card = ET.SubElement(devices, "interface", type="user")
    ET.SubElement(card, "model", type="virtio")
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(folder / "bare.log"))
    return ET.tostring(domain, encoding="unicode")


def bare(hypervisor: libvirt.virConnect, xml: str, folder: Path, image: Path) -> Bare:
    """Start the bare guest, see it READY, end it."""
    log = folder / "bare.log"
    log.unlink(missing_ok=True)
    disk = folder / "bare.raw"
    shutil.copyfile(image, disk)
    begun = _now()
    domain = hypervisor.createXML(bare_xml(xml, folder, disk), 0)
    try:
        started = _until("QEMU runs bare", lambda: _started_at(BARE_NAME))
        _until("the bare guest says READY", lambda: _shows_ready(log))
        return Bare(started - begun, _now() - begun)
    finally:
        domain.destroy()


def measure(made: Instance, rounds: int) -> Results:
    """The figures of one run."""
    made.trivet("image", "build-tiny")
    image = next((made.layout.state / "tiny-image").glob("*.raw"))
    hypervisor = libvirt.open(libvirtd_of(made.layout).uri)
    pairs: list[tuple[Ours, Bare]] = []
    with made.client() as client:
        ours(made, client, hypervisor, "warm")
        for number in range(rounds):
            mine = ours(made, client, hypervisor, f"vm-{number}")
            other = bare(hypervisor, mine.xml, made.layout.root, image)
            pairs.append((mine, other))
            say(f"ours {mine.told_s:.2f} s, bare {other.shown_s:.2f} s")
    hypervisor.close()
    shares = [(m.runs_s - b.runs_s) + (m.told_s - m.shown_s) for m, b in pairs]
    ratios = [mine.told_s / other.shown_s for mine, other in pairs]
    figures = {
        "total_ratio": median([mine.told_s for mine, _ in pairs])
        / median([other.shown_s for _, other in pairs]),
        "control_plane_p50_ms": ms(percentile(shares, 50)),
        "control_plane_p90_ms": ms(percentile(shares, 90)),
        "total_p50_s": median([mine.told_s for mine, _ in pairs]),
    }
    raw = {
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ours_s": [round(mine.told_s, 3) for mine, _ in pairs],
        "bare_s": [round(other.shown_s, 3) for _, other in pairs],
        "until_qemu_s": [round(mine.runs_s, 3) for mine, _ in pairs],
        "bare_until_qemu_s": [round(other.runs_s, 3) for _, other in pairs],
        "ready_until_told_s": [round(mine.told_s - mine.shown_s, 3) for mine, _ in pairs],
        "control_plane_s": [round(share, 3) for share in shares],
    }
    return Results(figures, raw)


def trace() -> Results:
    """Draw one create, the second one: the first also warms caches."""
    collector = Collector()
    try:
        with instance(collector.settings) as made, made.client() as client:
            made.trivet("image", "build-tiny")
            hypervisor = libvirt.open(libvirtd_of(made.layout).uri)
            ours(made, client, hypervisor, "warm")
            begun_s = time.time()
            mine = ours(made, client, hypervisor, "traced")
            hypervisor.close()
            marks = {
                "QEMU runs": begun_s + mine.runs_s,
                "READY on the console": begun_s + mine.shown_s,
                "READY in the API": begun_s + mine.told_s,
            }
            spans = collector.within(begun_s, begun_s + mine.told_s)
    finally:
        collector.close()
    for line in drawn(spans, begun_s, marks):
        print(line)
    return Results(raw={"spans": len(spans)})


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench vm-create", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--trace", action="store_true", help="draw one create instead")
    chosen = parser.parse_args(arguments)
    if chosen.trace:
        return trace()
    with instance() as made:
        return measure(made, chosen.rounds)
