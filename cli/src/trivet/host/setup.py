"""`trivet up`: from a bare machine to a running one-node cluster, in steps that may be repeated.

Each step looks at what is there and does what is missing, so that a repeated `up` costs little,
mends a half-made instance, and brings new code to a running one without touching its guests.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from trivet.host import caller, environment, machine, processes, readiness
from trivet.host.certificates import ensure_certificates
from trivet.host.checkout import checkout, source_version
from trivet.host.cluster import membership
from trivet.host.config_files import ensure_settings, write_bus_config
from trivet.host.defaults import ensure_defaults, made_defaults
from trivet.host.failure import failed
from trivet.host.hypervisor import prepare_libvirtd
from trivet.host.keys import ensure_keys
from trivet.host.layout import Layout
from trivet.host.logs import tail
from trivet.host.processes import ProcessRecord
from trivet.host.readiness import proves_something
from trivet.runtime.settings import Settings

SUPERVISOR = "supervisor"
READY_WITHIN_S = 120.0
LEAVE_WITHIN_S = 15.0

Say = Callable[[str], None]


def up(layout: Layout, env: Mapping[str, str], say: Say) -> None:
    """Set the instance up and start it; returns when it is ready for use."""
    os.umask(0o022)
    folder = checkout()
    version = source_version(folder)
    machine.make_folders(layout)
    machine.remember_sysctls(layout)
    user = machine.ensure_user(layout)
    machine.ensure_libvirt_user(layout)
    if environment.installed_version(layout) != version:
        leave_processes(layout, say)
        say("installing the services")
        environment.install(layout, folder, version)
    settings = configure(layout, user)
    wanted = f"{version}-{_digest(*_read_at_start(layout))}"
    _start(layout, wanted, say)
    say("waiting for the services")
    token = _wait_until_ready(layout, settings)
    for name in ensure_defaults(layout, settings, token):
        say(f"made {name}")
    file = caller.client_file(layout, env)
    caller.write(layout, file, readiness.gateway_url(settings), token)


def configure(layout: Layout, user: int) -> Settings:
    """Settings, keys, certificates, and what the bus and libvirt's daemon are started with;
    `user` is the service user's id. What is there already stays."""
    known = membership(layout)
    settings = ensure_settings(layout, known)
    public_keys = ensure_keys(layout.keys, {"gateway": user})
    if known is None:  # else the cluster's authority has issued it
        names, addresses = _own_names()
        now = dt.datetime.now(dt.UTC)
        ensure_certificates(layout.tls, names, addresses, user, now)
    for folder in (layout.bus_data, layout.gateway_data):
        machine.give_to_user(folder, user)
    write_bus_config(layout, settings, public_keys, known)
    prepare_libvirtd(layout)
    return settings


def _own_names() -> tuple[list[str], list[str]]:
    hostname = socket.gethostname()
    addresses = {"127.0.0.1", "::1"}
    listed = subprocess.run(
        ("ip", "-o", "addr", "show", "scope", "global"), capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        name, address = line.split()[1], line.split()[3]
        if not name.startswith(("tv", "docker", "virbr", "veth")):
            addresses.add(address.partition("/")[0])
    return list(dict.fromkeys(["localhost", hostname])), sorted(addresses)


def _read_at_start(layout: Layout) -> tuple[Path, ...]:
    """The files that processes read when they start: where one changes, they start anew."""
    return (layout.settings_file, layout.bus_config, layout.tls / "server.pem")


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def running_supervisor(layout: Layout) -> ProcessRecord | None:
    """The supervisor that runs, if one does."""
    record = processes.load(SUPERVISOR, layout.processes)
    return record if record and processes.alive(record) else None


def leave_processes(layout: Layout, say: Say) -> None:
    """End the supervisor alone, if one runs; what it started runs on."""
    record = running_supervisor(layout)
    if record is None:
        return
    say("ending the old supervisor")
    processes.send(record, signal.SIGUSR1)
    if not processes.wait_gone(record, LEAVE_WITHIN_S):
        processes.end(record, grace_s=0)


def _start(layout: Layout, version: str, say: Say) -> None:
    record = running_supervisor(layout)
    if record and record.version == version:
        return
    leave_processes(layout, say)
    layout.status_file.unlink(missing_ok=True)
    say("starting the services")
    if layout.ordinary and machine.has_systemd():
        machine.install_unit(layout, version)
        machine.start_unit()
        return
    python = str(layout.venv / "bin/python")
    argv = (python, "-m", "trivet.host.supervise", "--root", str(layout.root), "--version", version)
    with layout.log_file(SUPERVISOR).open("ab") as output:
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )


def _wait_until_ready(layout: Layout, settings: Settings) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    why = "the supervisor did not start"
    while time.monotonic() < deadline:
        # The gateway of an earlier supervisor answers, too, until the new one has ended it.
        started = readiness.supervised(layout, "gateway")
        health = readiness.gateway_health(settings, layout) if started else None
        token = _token(layout) if health and health.status == "ok" else None
        # The file is there before the token counts; later its owner may have revoked it.
        if token and (made_defaults(layout) or proves_something(settings, layout, token)):
            return token
        if token:
            why = "the first token does not count yet"
        elif health is None:
            why = "the gateway does not answer"
        else:
            silent = ", ".join(f"{n} ({reason})" for n, reason in health.silent.items())
            why = f"not answering: {silent}" if silent else "there is no first token yet"
        time.sleep(0.25)
    said = tail(layout.log_file(SUPERVISOR), 1)
    raise failed(
        f"not ready after {READY_WITHIN_S:.0f} s: {why}; the supervisor: "
        f"{said[0] if said else 'nothing'}",
        hint=f"look at {layout.log}",
    )


def _token(layout: Layout) -> str | None:
    file = layout.token_file
    return file.read_text().strip() if file.exists() else None
