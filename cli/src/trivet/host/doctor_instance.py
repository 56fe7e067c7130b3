"""How this node's instance is: its own checks, its processes, and its ports."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from trivet.contracts.compute.alarms import RULES
from trivet.contracts.compute.node_check import CheckResult
from trivet.contracts.driver import DriverContext
from trivet.host.cluster import BUS_PORT
from trivet.host.doctor import Finding
from trivet.host.layout import Layout
from trivet.host.readiness import gateway_health, gateway_url
from trivet.host.setup import running_supervisor
from trivet.runtime.node_checks import look, open_checks
from trivet.runtime.plugins import Plugins
from trivet.runtime.settings import Settings

PROCESSES = "Processes"
ALARM_OF = {
    "DiskSpace": "node-disk-full",
    "BusStore": "bus-store-full",
    "Certificate": "certificate-expired",
}
START = "`sudo ./trivet up` starts it"


async def checks(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """What the node's own checks say: the same that its agent keeps on record."""
    with tempfile.TemporaryDirectory(prefix="trivet-doctor-") as folder:
        here = DriverContext(settings.node, Path(folder), Path(folder), settings.prefix)
        opened = await open_checks(Plugins.discover(), settings, lambda name: here)
        results = await look(opened)
        for check in opened:
            await check.close()
    if not layout.settings_file.exists():
        # There is no instance yet: no certificate is no fault.
        results = tuple(r for r in results if r.type != "Certificate")
    return [_finding(result) for result in results if result.type != PROCESSES]


def _finding(result: CheckResult) -> Finding:
    """What a check says, with the remedy of the alarm that it would be cause for."""
    says = result.message or result.detail or result.reason
    remedies = {rule.name: rule.remedy for rule in RULES}
    hint = "" if result.ok is not False else remedies.get(ALARM_OF.get(result.type, ""), "")
    return Finding("node", _words(result.type), result.ok, says, hint)


def _words(camel: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in camel).strip()


async def runs(layout: Layout, settings: Settings) -> bool:
    """Whether the instance runs: under its supervisor, or (in containers) under another."""
    if running_supervisor(layout) is not None:
        return True
    return await asyncio.to_thread(gateway_health, settings, layout) is not None


async def processes(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """What the supervisor says of its processes, and the gateway of the services."""
    found: list[Finding] = []
    health = await asyncio.to_thread(gateway_health, settings, layout)
    if running_supervisor(layout) is not None:
        found += _processes(layout)
    elif health is not None:
        says = "the processes run under another supervisor, as in containers"
        found.append(Finding("instance", "supervisor", None, says))
    else:
        stopped = layout.settings_file.exists()
        says = "not running" if stopped else "there is no instance on this machine"
        found.append(Finding("instance", "supervisor", None, says, START))
    if health is None:
        expected = bool(found) and found[0].about != "supervisor"
        says = f"the gateway does not answer at {gateway_url(settings)}"
        hint = f"see {layout.log_file('gateway')}"
        if expected or layout.ca_file.exists():
            found.append(Finding("instance", "health", False if expected else None, says, hint))
        return found
    bad = [Finding("instance", f"service {n}", False, why) for n, why in health.silent.items()]
    return [*found, Finding("instance", "health", health.status == "ok", health.status), *bad]


def _processes(layout: Layout) -> list[Finding]:
    told = json.loads(layout.status_file.read_text())["processes"]
    found = []
    for name, process in told.items():
        says = f"pid {process['pid']}, {'ready' if process['ready'] else 'not ready'}"
        if process["failures"]:
            says += f", ended {process['failures']} times in a row (last {process['last_exit']})"
        hint = "" if process["ready"] else f"see {layout.log_file(name)}"
        found.append(Finding("instance", name, bool(process["ready"]), says, hint))
    return found


async def ports(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """Whether the ports are ours to take, where the instance does not run; else who is there."""
    running = await runs(layout, settings)
    bus = urlsplit(settings.bus.urls[0])
    wanted = (("bus", bus.hostname or "127.0.0.1", bus.port or BUS_PORT),)
    api = urlsplit(gateway_url(settings))
    gateway = ("gateway", api.hostname or "127.0.0.1", settings.gateway.port)
    found = []
    for name, host, port in (*wanted, gateway):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as link:
            link.settimeout(3)
            taken = link.connect_ex((host, port)) == 0
        if running:
            says = "somebody listens" if taken else "nobody listens"
            finding = Finding("instance", f"port {port}", taken, f"{says}: {name}")
        else:
            says = f"taken by another program; {name} wants it" if taken else f"free for {name}"
            hint = f"end that program, or set another port in {layout.settings_file}"
            finding = Finding("instance", f"port {port}", not taken, says, hint if taken else "")
        found.append(finding)
    return found
