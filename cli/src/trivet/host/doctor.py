"""`trivet doctor`: what works on this machine, and why what doesn't.

It asks every driver's probe, the engines for their versions, the supervisor for its processes,
and looks at ports and space. It changes nothing and needs no running instance.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from dataclasses import dataclass
from urllib.parse import urlsplit

from trivet.contracts import hookspecs
from trivet.contracts.errors import TrivetError
from trivet.host.layout import Layout
from trivet.host.readiness import gateway_health
from trivet.host.setup import running_supervisor
from trivet.runtime.plugins import Plugins
from trivet.runtime.settings import Settings, load_settings

LEAST_FREE_BYTES = 5 * 2**30
ENGINES = {
    "qemu": ("qemu-system-x86_64", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "nbdkit": ("nbdkit", "--version"),
    "nftables": ("nft", "--version"),
    "dnsmasq": ("dnsmasq", "--version"),
    "iproute2": ("ip", "-V"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `ok` None: worth knowing, neither good nor bad."""

    about: str
    ok: bool | None
    says: str


async def examine(layout: Layout) -> list[Finding]:
    """Everything that can be told of this machine."""
    findings = [*_engines(), *_space(layout)]
    try:
        settings = load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})
    except TrivetError as error:
        findings.append(Finding("settings", False, str(error)))
    else:
        findings += [*_processes(layout, settings), *_ports(layout, settings)]
    return findings + await _drivers()


async def _drivers() -> list[Finding]:
    plugins = Plugins.discover()
    findings = [Finding(f"plugin {n}", False, reason) for n, reason in plugins.rejected.items()]
    for hook in (name for name in vars(hookspecs) if name.startswith("trivet_")):
        if "placement" in hook:  # values, not drivers: nothing to probe
            continue
        kind = hook.removeprefix("trivet_").replace("_", " ")
        for found in await plugins.report(hook):
            ok = True if found.probe.usable else None
            findings.append(Finding(f"{kind}: {found.name}", ok, found.probe.reason))
    return findings


def _engines() -> list[Finding]:
    findings = []
    for name, argv in ENGINES.items():
        if shutil.which(argv[0]) is None:
            findings.append(Finding(name, False, f"{argv[0]} is not installed"))
            continue
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
        said = (done.stdout or done.stderr).splitlines()
        findings.append(Finding(name, done.returncode == 0, said[0] if said else "says nothing"))
    return findings


def _space(layout: Layout) -> list[Finding]:
    place = next(p for p in (layout.state, *layout.state.parents) if p.exists())
    free = shutil.disk_usage(place).free
    return [Finding("disk space", free >= LEAST_FREE_BYTES, f"{free / 2**30:.0f} GiB free")]


def _processes(layout: Layout, settings: Settings) -> list[Finding]:
    if running_supervisor(layout) is None:
        return [Finding("supervisor", None, "not running; `sudo ./trivet up` starts it")]
    findings = []
    for name, told in json.loads(layout.status_file.read_text())["processes"].items():
        says = f"pid {told['pid']}, {'ready' if told['ready'] else 'not ready'}"
        if told["failures"]:
            says += f", ended {told['failures']} times (last {told['last_exit']})"
        findings.append(Finding(name, bool(told["ready"]), says))
    health = gateway_health(settings, layout)
    if health:
        silent = [Finding(n, False, f"does not answer: {r}") for n, r in health.silent.items()]
        findings += [Finding("health", health.status == "ok", health.status), *silent]
    return findings


def _ports(layout: Layout, settings: Settings) -> list[Finding]:
    if running_supervisor(layout) is not None:
        return []
    bus = urlsplit(settings.bus.urls[0]).port or 4222
    findings = []
    for name, port in (("bus", bus), ("gateway", settings.gateway.port)):
        with socket.socket() as link:
            taken = link.connect_ex(("127.0.0.1", port)) == 0
        says = f"port {port} is {'taken by somebody else' if taken else 'free'}"
        findings.append(Finding(f"{name} port", not taken, says))
    return findings
