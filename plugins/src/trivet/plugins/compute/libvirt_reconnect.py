"""Disks that outlive their server: QEMU connects again when it was killed, or was made larger.

QEMU's NBD client gives up at the first lost connection unless it was told to try again. libvirt
can say so in a domain's XML since 9.5. For an older one it is said here, right after a start or
a plug, over QEMU's monitor: each disk's node is exchanged for one that connects again, twice, so
that it has the name that libvirt knows in the end (about 30 ms, unnoticed by the guest).
A client that has waited its time fails its requests, and goes on trying beside them, at most 16 s
apart: a guest that was stopped by that runs on with a later resume.
Should this process die in between, that run's disks are as without it: a disk that is lost stays
lost until the next start, and the guest is stopped before it sees an error.
"""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from trivet.plugins.compute.libvirt_device_xml import RECONNECT_S

if TYPE_CHECKING:
    import libvirt

log = logging.getLogger(__name__)

IN_XML_SINCE = 9_005_000
FORMAT_NODE = re.compile(r"^libvirt-(?P<number>[0-9]+)-format$")
_CACHE = {"direct": True, "no-flush": False}


class MonitorError(Exception):
    """QEMU refused a command."""


def said_in_xml(connection: libvirt.virConnect) -> bool:
    """Whether libvirt itself can be told that disks connect again."""
    return bool(connection.getLibVersion() >= IN_XML_SINCE)


def disk_nodes(domain: libvirt.virDomain) -> dict[str, dict[str, Any]]:
    """The block nodes of a running domain, by name."""
    nodes = _ask(domain, "query-named-block-nodes", flat=True)
    return {node["node-name"]: node for node in nodes}


def keep_connected(domain: libvirt.virDomain, known: frozenset[str] = frozenset()) -> None:
    """Have all disks connect again, but for those whose nodes are `known`. A disk with which that
    fails works as before."""
    nodes = disk_nodes(domain)
    for name in sorted(nodes.keys() - known):
        match = FORMAT_NODE.match(name)
        below = nodes.get(f"libvirt-{match['number']}-storage") if match else None
        if below is None or below["drv"] != "nbd":
            continue
        try:
            _exchange(domain, name, below)
        except MonitorError as error:
            log.warning("%s: disk %s will not connect again: %s", domain.name(), name, error)


def connect_now(domain: libvirt.virDomain, alias: str) -> None:
    """Have the disk of that alias connect again if it lost its server: by reading a sector."""
    import libvirt_qemu

    for disk in _ask(domain, "query-block"):
        if f"/{alias}/" in f"{disk.get('qdev', '')}/" and "inserted" in disk:
            libvirt_qemu.qemuMonitorCommand(
                domain,
                f'qemu-io {disk["inserted"]["node-name"]} "read 0 512"',
                libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP,
            )


def _exchange(domain: libvirt.virDomain, top: str, below: dict[str, Any]) -> None:
    name = below["node-name"]
    url = urlsplit(below["file"])
    server = {
        "driver": "nbd",
        "server": {"type": "unix", "path": parse_qs(url.query)["socket"][0]},
        "export": unquote(url.path.removeprefix("/")),
        "cache": _CACHE,
        "auto-read-only": True,
        "discard": "unmap",
        "reconnect-delay": RECONNECT_S,
    }
    over = {"driver": "raw", "node-name": top, "cache": _CACHE, "discard": "unmap"}
    between = f"{name}-x"
    _ask(domain, "blockdev-add", **{**server, "node-name": between})
    _ask(domain, "blockdev-reopen", options=[{**over, "read-only": False, "file": between}])
    _ask(domain, "blockdev-del", **{"node-name": name})
    _ask(domain, "blockdev-add", **{**server, "node-name": name})
    _ask(domain, "blockdev-reopen", options=[{**over, "read-only": False, "file": name}])
    _ask(domain, "blockdev-del", **{"node-name": between})


def _ask(domain: libvirt.virDomain, command: str, **arguments: Any) -> Any:
    import libvirt_qemu

    request = json.dumps({"execute": command, "arguments": arguments})
    flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT
    answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, request, flags))
    if "error" in answer:
        raise MonitorError(f"{command}: {answer['error'].get('desc')}")
    return answer["return"]
