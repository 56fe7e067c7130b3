"""What a node in containers needs beside its services: `python -m trivet.host.container PART`.

The container engine is the supervisor there, and compose.yaml says what runs and after what. The
parts: `setup` makes what `up` makes outside the services, waits, and takes away what is left when
it is told to end, which is last; `provision` makes the bus's streams; `libvirtd` becomes libvirt's
daemon; `keeper` makes the first resources and stops the guests when it is told to end, which is
first. `setup` and `keeper` say that they are done with a file, which the health checks look for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from trivet.contracts.errors import Retry, TrivetError
from trivet.host import bus_admin, caller, machine, readiness, setup, teardown, traces
from trivet.host import made as record
from trivet.host.defaults import ensure_defaults
from trivet.host.failure import failed
from trivet.host.hypervisor import libvirtd_of, make_cpu_group
from trivet.host.layout import Layout
from trivet.runtime.logs import configure_logs
from trivet.runtime.settings import Settings, load_settings

log = logging.getLogger("trivet.host.container")

READY_WITHIN_S = 300.0
LAYOUT = Layout()


def _settings() -> Settings:
    return load_settings({"TRIVET_SETTINGS": str(LAYOUT.settings_file)})


def _until_told() -> None:
    """Wait for SIGTERM or SIGINT."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    told.wait()


def mark(part: str) -> Path:
    """The file by which a part says that it is done with what others wait for."""
    return LAYOUT.run / f"container-{part}"


def run_setup() -> None:
    """Make settings, keys and certificates; wait; take away what is left on the host."""
    os.umask(0o022)
    for stale in (mark("setup"), mark("keeper"), libvirtd_of(LAYOUT).socket):
        stale.unlink(missing_ok=True)
    machine.make_folders(LAYOUT)
    machine.remember_sysctls(LAYOUT)
    setup.configure(LAYOUT, machine.ensure_user(LAYOUT))
    machine.ensure_libvirt_user(LAYOUT)
    mark("setup").touch()
    log.info("settings, keys and certificates are there")
    _until_told()
    left = teardown.take_down(LAYOUT, log.info)
    traces.restore_sysctls(record.load(LAYOUT).sysctls)
    if left:
        log.warning("still there: %s", left)


def run_provision() -> None:
    """Make the bus's streams and buckets, once it answers."""
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            asyncio.run(bus_admin.provision(_settings()))
        except Retry as error:
            if time.monotonic() > deadline:
                raise
            log.info("%s", error)
            time.sleep(0.5)
        else:
            log.info("the bus has its streams and buckets")
            return


def run_libvirtd() -> None:
    """Become libvirt's daemon; never returns."""
    make_cpu_group(LAYOUT)
    argv = libvirtd_of(LAYOUT).argv
    os.execvp(argv[0], argv)


def run_keeper() -> None:
    """Make the first resources; wait; stop the guests."""
    settings = _settings()
    token = _wait_until_ready(settings)
    for name in ensure_defaults(LAYOUT, settings, token):
        log.info("made %s", name)
    file = caller.ClientFile(LAYOUT.etc / "client.toml", os.geteuid(), os.getegid())
    caller.write(LAYOUT, file, readiness.gateway_url(settings), token)
    mark("keeper").touch()
    log.info("the node is ready")
    _until_told()
    drained = asyncio.run(bus_admin.drain(settings, bus_admin.DRAIN_GRACE_S))
    log.info("guests stopped: %d, of them by force: %d", drained.stopped, drained.forced)


def _wait_until_ready(settings: Settings) -> str:
    deadline = time.monotonic() + READY_WITHIN_S
    health = None
    while time.monotonic() < deadline:
        health = readiness.gateway_health(settings, LAYOUT)
        if health and health.status == "ok" and LAYOUT.token_file.exists():
            return LAYOUT.token_file.read_text().strip()
        time.sleep(0.5)
    why = health.silent if health else "the gateway does not answer"
    raise failed(f"not ready after {READY_WITHIN_S:.0f} s: {why}")


PARTS: dict[str, Callable[[], None]] = {
    "setup": run_setup,
    "provision": run_provision,
    "libvirtd": run_libvirtd,
    "keeper": run_keeper,
}


def main(arguments: list[str]) -> int:
    """Run a part; the exit code."""
    part = arguments[0] if arguments else ""
    try:
        if part not in PARTS:
            print(f"one of: {', '.join(PARTS)}", file=sys.stderr)
            return 2
        configure_logs(part, "INFO")
        PARTS[part]()
    except TrivetError as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
