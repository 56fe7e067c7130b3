"""Taking away what drivers made on the node: engines, namespaces, links, tables, mounts, loops.

Data stays: this is what a reboot would take. What belongs to the instance is told by its folders
and its prefix (`traces`), not by what services remember, so that it works after a crash, half
made or half taken away, and twice.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from trivet.contracts.errors import TrivetError
from trivet.host import processes, traces
from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import Layout
from trivet.plugins.compute import cpu_groups
from trivet.plugins.network.node_forwarding import NodeForwarding

ROUNDS = 5
LAST = ("nats-server", "libvirtd")
RECORDED_LAST = ("nats", "libvirtd")
FORWARDING = "network/netns-gateway/forwarding.json"


def stop_guests(layout: Layout, say: Callable[[str], None]) -> None:
    """Cut the power of guests that are left, through libvirt's daemon where it still runs."""
    libvirtd = libvirtd_of(layout)
    if not libvirtd.socket.exists():
        return
    virsh = ("virsh", "-c", libvirtd.uri)
    listed = _run(*virsh, "list", "--name")
    for name in listed.split():
        say(f"cutting the power of {name}")
        _run(*virsh, "destroy", name)


def end_recorded(layout: Layout, say: Callable[[str], None]) -> None:
    """End what a supervisor recorded and left running, the last started first."""
    found = processes.load_all(layout.processes)
    for record in sorted(found, key=lambda r: (r.name in RECORDED_LAST, -r.started)):
        if processes.alive(record):
            say(f"ending {record.name} (pid {record.pid})")
            processes.end(record)
        processes.forget(record.name, layout.processes)


def end_engines(layout: Layout, say: Callable[[str], None]) -> None:
    """End every process of the instance: services first, then engines, then what they need."""
    found = [
        (name in LAST, name, record)
        for pid in processes.pids()
        if (name := traces.engine_of(layout, pid))
        and (record := processes.record_of(name, pid)) is not None
    ]
    for _, name, record in sorted(found, key=lambda item: item[0]):
        say(f"ending {name} (pid {record.pid})")
        processes.end(record)


def take_down(layout: Layout, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Take away everything but files. Returns what could not be, by kind ({}: nothing)."""
    end_recorded(layout, say)
    end_engines(layout, say)
    _turn_forwarding_back(layout, say)
    left: dict[str, list[str]] = {}
    for attempt in range(ROUNDS):
        _delete_network(layout)
        _delete_mounts(layout, lazily=attempt == ROUNDS - 1)
        left = traces.ours(layout, traces.snapshot(layout))
        left.pop("files", None)
        cpu_groups.remove(layout.prefix)
        if not left:
            return {}
        end_engines(layout, say)
        time.sleep(0.2 * attempt)
    return left


def _turn_forwarding_back(layout: Layout, say: Callable[[str], None]) -> None:
    """Undo what the gateway driver changed of the node's own forwarding, from its record."""
    node = NodeForwarding(layout.state / FORWARDING, layout.prefix)
    try:
        asyncio.run(node.turn_back())
    except (OSError, TrivetError) as error:
        say(f"the node's forwarding could not be turned back: {error}")


def _delete_network(layout: Layout) -> None:
    prefix = layout.prefix
    for name in traces.namespaces():
        if name.startswith(f"{prefix}-"):
            for pid in _run("ip", "netns", "pids", name).split():
                if record := processes.record_of(name, int(pid)):
                    processes.end(record, grace_s=3.0)
            _run("ip", "netns", "delete", name)
    for family, name in traces.tables():
        if name.startswith(f"{prefix}_"):
            _run("nft", "delete", "table", family, name)
    for link in traces.links():
        if traces.is_our_link(prefix, link):
            _run("ip", "link", "delete", link)


def _delete_mounts(layout: Layout, *, lazily: bool) -> None:
    for point in reversed(traces.mounts()):
        if layout.owns(point):
            _run("umount", *(("--lazy",) if lazily else ()), point)
            _remove_mount_point(point)
    for device, file in traces.loops().items():
        if layout.owns(file):
            _run("losetup", "--detach", device)


def _remove_mount_point(point: str) -> None:
    """Remove an empty mount point. With it go copies of the mount in mount namespaces that
    others began meanwhile (a container's, say), which would keep its loop device busy."""
    with suppress(OSError):
        os.rmdir(point)


def _run(*argv: str) -> str:
    """The output of a command; one that fails is seen by what is left afterwards."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
