"""What Trivet could leave on a machine: a snapshot of it, and the difference of two.

`purge` promises to leave the machine as it was. Its test takes a snapshot before `up` and one
after `purge`; `purge` itself asks for what is left by our own names and folders. Only kinds of
things that Trivet makes are looked at; reading them changes nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trivet.host.layout import Layout
from trivet.host.processes import arguments, environment, in_our_root, pids, program

SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "net/ipv4/conf/all/accept_redirects",
)
LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO_BYTES = 232
"""Request and size of `struct loop_info64`, which begins with device and inode (linux/loop.h)."""

MODULE_SYSCTLS = (
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
)


@dataclass(frozen=True)
class Traces:
    """The machine as far as Trivet could change it: by kind, what is there.

    `processes` are command lines with their pids; `mounts` are mount points; `loops` backing
    files; `sysctls` `name=value`.
    """

    processes: frozenset[str]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    loops: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    sysctls: frozenset[str]
    files: frozenset[str]
    users: frozenset[str]


def snapshot(layout: Layout) -> Traces:
    """The machine now. Kernel threads are no processes here."""
    running = {f"{pid} {' '.join(argv)}" for pid in pids() if (argv := arguments(pid))}
    return Traces(
        processes=frozenset(running),
        namespaces=frozenset(namespaces()),
        mounts=frozenset(mounts()),
        loops=frozenset(loops().values()),
        links=frozenset(links()),
        tables=frozenset(" ".join(table) for table in tables()),
        sysctls=frozenset(f"{name}={value}" for name, value in sysctls().items()),
        files=frozenset(_files(layout)),
        users=frozenset(entry.pw_name for entry in pwd.getpwall()),
    )


def added(before: Traces, after: Traces) -> dict[str, list[str]]:
    """What `after` has over `before`, by kind; kinds without are left out."""
    more = {
        kind: sorted(getattr(after, kind) - getattr(before, kind))
        for kind in before.__annotations__
    }
    return {kind: things for kind, things in more.items() if things}


def lost(before: Traces, after: Traces) -> dict[str, list[str]]:
    """What `before` had and `after` lacks, by kind; processes of others may well end."""
    less = added(after, before)
    less.pop("processes", None)
    return less


def ours(layout: Layout, traces: Traces) -> dict[str, list[str]]:
    """What of a snapshot is the instance's, by its prefix and its folders; {}: nothing is."""
    prefix = layout.prefix
    found = {
        "processes": sorted(p for p in traces.processes if engine_of(layout, int(p.split()[0]))),
        "namespaces": sorted(n for n in traces.namespaces if n.startswith(f"{prefix}-")),
        "mounts": sorted(m for m in traces.mounts if layout.owns(m)),
        "loops": sorted(f for f in traces.loops if layout.owns(f)),
        "links": sorted(link for link in traces.links if is_our_link(prefix, link)),
        "tables": sorted(t for t in traces.tables if t.split()[1].startswith(f"{prefix}_")),
        "files": sorted(traces.files),
    }
    return {kind: things for kind, things in found.items() if things}


ENGINES = re.compile(
    r"^(qemu-system-.*|qemu-storage-daemon|qemu-nbd|nbdkit|dnsmasq|swtpm|libvirtd|nats-server)$"
)


def engine_of(layout: Layout, pid: int) -> str | None:
    """The name of the engine that a process is, if it works for this instance: a known program
    that was told a path in our folders or has our settings in its environment, or one that was
    installed there. Else None: an editor that has our file open is somebody's, not ours."""
    path = program(pid)
    argv = arguments(pid)
    if not argv or not in_our_root(pid):
        return None
    if layout.opt in Path(argv[0]).parents or layout.owns(path):
        return Path(argv[0]).name
    name = Path(path).name
    if not ENGINES.match(name):
        return None
    if f"TRIVET_SETTINGS={layout.settings_file}" in environment(pid):
        return name
    roots = [re.escape(str(folder)) for folder in layout.folders]
    told = re.compile(rf"(^|[^\w./-])({'|'.join(roots)})(/|$)")
    return name if any(told.search(argument) for argument in argv[1:]) else None


def is_our_link(prefix: str, name: str) -> bool:
    """Whether a link's name is one that drivers make: the prefix, a letter or two for the kind,
    then hexadecimal digits."""
    return bool(re.fullmatch(rf"{prefix}[a-z]{{1,4}}[-0-9a-f]*", name))


def namespaces() -> list[str]:
    """The named network namespaces."""
    folder = Path("/run/netns")
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def mounts() -> list[str]:
    """The mount points of this mount namespace, in order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [_unescaped(line.split()[4]) for line in lines]


def mounts_of_others() -> frozenset[str]:
    """The mount points of all mount namespaces of the machine but this one."""
    namespaces = {os.readlink("/proc/self/ns/mnt")}
    found: set[str] = set()
    for pid in pids():
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in namespaces:
                continue
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:  # it ended meanwhile, or is no business of ours
            continue
        namespaces.add(namespace)
        found.update(_unescaped(line.split()[4]) for line in lines)
    return frozenset(found)


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)


def loops() -> dict[str, str]:
    """The backing file of each loop device that has one in the file system that we see; a
    container's can have the same path and be another file."""
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        device = f"/dev/{path.parts[3]}"
        try:
            file, deleted = _without_mark(path.read_text().strip())
            if deleted or _identity(device) == _file_identity(file):
                found[device] = file
        except OSError:  # it went meanwhile, or the file is not in our file system
            continue
    return found


def _without_mark(backing_file: str) -> tuple[str, bool]:
    """A backing file's path, and whether the file was deleted."""
    path = backing_file.removesuffix(" (deleted)")
    return path, path != backing_file


def _identity(device: str) -> tuple[int, int]:
    """Device and inode number of a loop device's backing file, from the kernel."""
    with open(device, "rb") as opened:
        info = fcntl.ioctl(opened, LOOP_GET_STATUS64, bytes(LOOP_INFO_BYTES))
    device_number, inode = struct.unpack_from("=QQ", info)
    return device_number, inode


def _file_identity(file: str) -> tuple[int, int]:
    stat = os.stat(file)
    return stat.st_dev, stat.st_ino


def links() -> list[str]:
    """The links of this network namespace."""
    return sorted(os.listdir("/sys/class/net"))


def tables() -> list[tuple[str, str]]:
    """The nft tables of this network namespace: family and name."""
    try:
        done = subprocess.run(
            ("nft", "-j", "list", "tables"), capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    listed = json.loads(done.stdout or '{"nftables": []}')["nftables"]
    return [(item["table"]["family"], item["table"]["name"]) for item in listed if "table" in item]


def sysctls() -> dict[str, str]:
    """The kernel settings that drivers may change, with their values."""
    return {
        name: value for name in (*SYSCTLS, *MODULE_SYSCTLS) if (value := _sysctl(name)) is not None
    }


def restore_sysctls(values: Mapping[str, str]) -> None:
    """Put kernel settings back as they were."""
    for name, value in values.items():
        if name in (*SYSCTLS, *MODULE_SYSCTLS) and _sysctl(name) not in (None, value):
            Path("/proc/sys", name).write_text(value)


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def _files(layout: Layout) -> list[str]:
    return [str(p) for p in (*layout.folders, layout.unit_file) if p.exists() or p.is_symlink()]
