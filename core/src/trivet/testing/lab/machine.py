"""What an instance has on its machine: processes, domains, links, rules, files, descriptors.

Only reads. What is counted is named by what it is for (the guest, the export, the tap), so that
a process that was started anew counts as the same, and a second one beside it does not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trivet.host import processes, traces
from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import SERVICES, Layout
from trivet.host.units import is_ours
from trivet.testing.lab.inventory import Inventory

NAMED = re.compile(r"\b(?:vm|volume|network|port|pool|image)-[0-9a-f]{16}(?:\.e\d+)?")
NUMBERED = re.compile(r"/domain-\d+-")
RECORDED = ("supervisor", "nats", "libvirtd", *SERVICES)
OWN_AFFAIR = ("nats", "libvirt/cache", "tiny-image")
"""Folders in the state whose files are their program's own affair."""
ONCE = ("forwarding.json",)
"""Written when a neighbour on the machine has changed a setting of the kernel that was in use."""


def machine(layout: Layout) -> Inventory:
    """What the instance holds now, but for what its services have open (`insides`)."""
    mine = traces.ours(layout, traces.snapshot(layout))
    found = Inventory.of(
        processes=running(layout),
        domains=domains(layout),
        files=files(layout),
        namespaces=mine.get("namespaces", ()),
        mounts=mine.get("mounts", ()),
        loops=mine.get("loops", ()),
        links=links(layout, mine.get("namespaces", [])),
        neighbours=neighbours(layout),
    )
    return found | Inventory({"rules": rules(layout)})


def running(layout: Layout) -> Iterator[str]:
    """The processes of the instance, by program and what each is for."""
    for pid in processes.pids():
        argv = processes.arguments(pid)
        if not argv or (name := traces.engine_of(layout, pid)) is None:
            continue
        if is_ours(argv, layout):
            yield argv[-1] if name.startswith("python") else name
        else:
            yield " ".join([name, *sorted(set(NAMED.findall(" ".join(argv))))])


def pids_for(layout: Layout, program: str, *about: str) -> list[int]:
    """The processes of a program of the instance whose command line has all of `about`."""
    return [
        pid
        for pid in processes.pids()
        if (traces.engine_of(layout, pid) or "").startswith(program)
        and all(word in " ".join(processes.arguments(pid)) for word in about)
    ]


def domains(layout: Layout) -> list[str]:
    """The domains that libvirt knows, running or not, with their state."""
    uri = libvirtd_of(layout).uri
    names = _run("virsh", "-c", uri, "list", "--all", "--name").split()
    return [f"{name} {_run('virsh', '-c', uri, 'domstate', name).strip()}" for name in names]


def files(layout: Layout) -> Iterator[str]:
    """The files in the instance's folders, but for its logs and its programs' own affairs."""
    skipped = [layout.state / name for name in OWN_AFFAIR]
    for root in (layout.run, layout.state, layout.etc):
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if Path(folder, name) not in skipped]
            paths = (f"{folder}/{name}" for name in (*names, *below) if _counts(name))
            # libvirt numbers the folders of its guests.
            yield from (NUMBERED.sub("/domain-N-", path) for path in paths)


def _counts(name: str) -> bool:
    return not name.endswith(".new") and name not in ONCE


def links(layout: Layout, namespaces: list[str]) -> Iterator[str]:
    """The links of the instance, in the node's namespace and in its own."""
    yield from (name for name in traces.links() if traces.is_our_link(layout.prefix, name))
    for namespace in namespaces:
        told = json.loads(_run("ip", "-n", namespace, "-j", "link", "show") or "[]")
        yield from (f"{namespace}/{link['ifname']}" for link in told)


def neighbours(layout: Layout) -> Iterator[str]:
    """Forwarding and neighbour entries that were made to stay, by their device. Those of
    multicast groups are the kernel's own, which it makes and drops as it sees fit."""
    for words in (("bridge", "-j", "fdb", "show"), ("ip", "-j", "neigh", "show")):
        for entry in json.loads(_run(*words) or "[]"):
            device = str(entry.get("ifname") or entry.get("dev") or "")
            group = str(entry.get("mac", "")).startswith(("01:", "33:33:"))
            stays = "permanent" in json.dumps(entry)
            if stays and not group and traces.is_our_link(layout.prefix, device):
                yield f"{words[2]} {device}"


def rules(layout: Layout) -> Counter[str]:
    """How many chains, rules and elements of sets each nft table of the instance has."""
    found: Counter[str] = Counter()
    for family, name in traces.tables():
        if not name.startswith(f"{layout.prefix}_"):
            continue
        listed = json.loads(_run("nft", "-j", "list", "table", family, name) or "{}")
        for item in listed.get("nftables", ()):
            found.update(_in_table(f"{family} {name}", item))
    return found


def _in_table(table: str, item: dict[str, Any]) -> Counter[str]:
    for kind in ("chain", "rule"):
        if kind in item:
            return Counter({f"{table} {kind}s": 1})
    for kind in ("set", "map"):
        if kind in item:
            return Counter(
                {f"{table} {kind} {item[kind]['name']}": len(item[kind].get("elem", ()))}
            )
    return Counter()


def insides(layout: Layout) -> Inventory:
    """What each supervised process has open: descriptors by kind, and threads."""
    descriptors: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for name in RECORDED:
        record = processes.load(name, layout.processes)
        if record is None or not processes.alive(record):
            continue
        for path in Path(f"/proc/{record.pid}/fd").iterdir():
            try:
                descriptors[f"{name} {re.sub(r'[0-9]+', 'N', os.readlink(path))}"] += 1
            except FileNotFoundError:
                continue
        threads[name] = len(os.listdir(f"/proc/{record.pid}/task"))
    return Inventory({"descriptors": descriptors, "threads": threads})


def _run(*argv: str) -> str:
    """The output of a command; none where it fails: what can't be read differs, and is seen."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout if done.returncode == 0 else ""
