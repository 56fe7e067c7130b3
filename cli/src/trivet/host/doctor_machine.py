"""What the machine has: engines and their versions, the kernel, and what drivers say of them."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from trivet.contracts import hookspecs
from trivet.host.doctor import Finding
from trivet.host.layout import Layout
from trivet.runtime.plugins import Plugins
from trivet.runtime.settings import Settings

VALUES = frozenset({"trivet_placement_filters", "trivet_placement_scorers"})
"""Hooks that register values, not drivers: there is nothing to probe."""

OPTIONAL = frozenset({"trivet_identity_providers", "trivet_alarm_sinks"})
"""Hooks of which settings name what is used: none is no fault."""

ENGINES = {
    "qemu": ("qemu-system-x86_64", "--version"),
    "qemu-storage-daemon": ("qemu-storage-daemon", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "nbdkit": ("nbdkit", "--version"),
    "nftables": ("nft", "--version"),
    "dnsmasq": ("dnsmasq", "--version"),
    "iproute2": ("ip", "-V"),
}


async def engines(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """Programs that drivers use, the kernel, and memory."""
    path = f"{layout.venv / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    nats = {"nats-server": ("nats-server", "--version")} if layout.venv.exists() else {}
    found = [
        await asyncio.to_thread(_engine, name, argv, path)
        for name, argv in {**ENGINES, **nats}.items()
    ]
    return [*found, _kernel(), _memory()]


def _engine(name: str, argv: tuple[str, ...], path: str) -> Finding:
    program = shutil.which(argv[0], path=path)
    if program is None:
        hint = "`./trivet up` installs it"
        return Finding("machine", name, False, f"{argv[0]} is not installed", hint)
    try:
        done = subprocess.run(
            (program, *argv[1:]), capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("machine", name, False, f"{program} does not run: {error}")
    said = (done.stdout or done.stderr).splitlines()
    return Finding("machine", name, done.returncode == 0, said[0] if said else "says nothing")


def _kernel() -> Finding:
    kvm = "there is a /dev/kvm" if Path("/dev/kvm").exists() else "no /dev/kvm: guests are slow"
    return Finding("machine", "kernel", None, f"Linux {platform.release()}, {kvm}")


def _memory() -> Finding:
    told = dict(
        line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, free = (int(told[n].split()[0]) // 1024 for n in ("MemTotal", "MemAvailable"))
    says = f"{free} of {total} MiB available"
    return Finding("machine", "memory", free >= total // 50, says, "end what is not needed")


async def drivers(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """Every driver's probe; a kind of which none can work is wrong."""
    plugins = Plugins.discover()
    rejected = plugins.rejected.items()
    findings = [Finding("drivers", f"plugin {name}", False, why) for name, why in rejected]
    for hook in (name for name in vars(hookspecs) if name.startswith("trivet_")):
        if hook in VALUES:
            continue
        kind = hook.removeprefix("trivet_").replace("_", " ")
        report = await plugins.report(hook)
        usable = any(found.probe.usable for found in report)
        bad = None if usable or hook in OPTIONAL else False
        for found in report:
            ok = True if found.probe.usable else bad
            findings.append(Finding("drivers", f"{kind}: {found.name}", ok, found.probe.reason))
        if not report and hook not in OPTIONAL:
            findings.append(Finding("drivers", kind, False, "no driver is installed"))
    return findings
