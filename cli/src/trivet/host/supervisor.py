"""The supervisor: keeps a node's processes running, and stops them in order.

It starts the bus, makes the bus's streams and buckets, starts libvirt's daemon and the services,
and starts again what ends (`restart` says when). It holds nothing that matters: killed with
SIGKILL, its processes run on, and the next supervisor ends what it finds recorded and starts it
anew. SIGTERM: guests are stopped, then everything. SIGUSR1: it alone ends (an upgrade).
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

from trivet.host import bus_errand, machine, processes, readiness
from trivet.host.bus_errand import DRAIN, PROVISION, PROVISION_S
from trivet.host.hypervisor import prepare_libvirtd
from trivet.host.layout import Layout
from trivet.host.logs import LogFolder
from trivet.host.processes import ProcessRecord
from trivet.host.restart import RestartState
from trivet.host.starvation import Space
from trivet.host.units import BUS, FILES_LIMIT, Unit, environment, ids_of, is_ours, units_of
from trivet.runtime.logs import configure_logs
from trivet.runtime.settings import Settings, load_settings

log = logging.getLogger(__name__)

NAME = "supervisor"
LOOK_EVERY_S = 0.25
DRAIN_S = 90.0
"""The grace that guests get, and the compute service's own time to say how it went."""


@dataclass
class _Running:
    """A unit and what became of it so far."""

    unit: Unit
    child: subprocess.Popen[bytes] | None = None
    record: ProcessRecord | None = None
    state: RestartState = field(default_factory=RestartState)
    ready: bool = False
    last_exit: int | None = None


class Supervisor:
    """One instance's processes. `run` returns when all were stopped, or were left behind."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        units = units_of(layout, witness=settings.witness)
        self._running = {unit.name: _Running(unit) for unit in units}
        self._logs = LogFolder(layout.log)
        self._asked = threading.Event()
        self._leave = False
        self._provisioned = settings.witness  # which leaves it to nodes that have services
        self._space = Space()
        self._stage = "starting"

    def ask(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler: end, leaving the processes alone for SIGUSR1."""
        del frame
        self._leave = number == signal.SIGUSR1
        self._asked.set()

    def run(self) -> None:
        """Supervise until a signal asks to end."""
        self.end_leftovers()
        while not self._asked.wait(LOOK_EVERY_S):
            self._look()
            self._tell("running")
        if not self._leave:
            self._stop_all()
        processes.forget(NAME, self._layout.processes)

    def end_leftovers(self) -> None:
        """End what a supervisor before us left running: it is not our child, so that we
        would not see it end."""
        folder = self._layout.processes
        for name in reversed(self._running):
            if record := processes.load(name, folder):
                log.info("ending %s of an earlier supervisor (pid %d)", name, record.pid)
                processes.end(record, self._running[name].unit.grace_s)
                processes.forget(name, folder)
        for pid in processes.pids():
            found = processes.record_of("unrecorded", pid)
            if found and is_ours(processes.arguments(pid), self._layout):
                log.info("ending an unrecorded process of ours (pid %d)", pid)
                processes.end(found)

    def _look(self) -> None:
        for running in self._running.values():
            self._see_end(running)
            if running.child is None:
                self._start_if_due(running)
            else:
                self._probe(running)
        if self._running[BUS].ready and not self._provisioned:
            self._provision()
        self._see_space()
        self._logs.rotate()

    def _see_space(self) -> None:
        """Start the bus anew where its disk was full and has room again (`starvation`)."""
        disk = os.statvfs(self._layout.bus_data)
        free_bytes = disk.f_bavail * disk.f_frsize
        was_starved, self._space = self._space.starved, self._space.seen(free_bytes)
        bus = self._running[BUS].child
        if self._space.starved and not was_starved:
            log.error("the disk of the bus is full: nothing can be changed until there is room")
        if bus is not None and self._space.start_anew(free_bytes):
            log.warning("the disk of the bus has room again: starting %s anew", BUS)
            bus.terminate()
            self._space = Space()

    def _see_end(self, running: _Running) -> None:
        if running.child is None or (code := running.child.poll()) is None:
            return
        name = running.unit.name
        running.state = running.state.ended(time.monotonic())
        wait_s = running.state.not_before - time.monotonic()
        log.warning("%s ended (%s); starting it again in %.1f s", name, code, wait_s)
        running.child, running.record, running.ready = None, None, False
        running.last_exit = code
        processes.forget(name, self._layout.processes)

    def _start_if_due(self, running: _Running) -> None:
        unit = running.unit
        if not running.state.due(time.monotonic()):
            return
        if not all(self._running[name].ready for name in unit.after):
            return
        if BUS in unit.after and not self._provisioned:
            return
        user, group = ids_of(unit.user)
        with self._logs.open(unit.name) as output:
            try:
                child = subprocess.Popen(
                    unit.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=environment(self._layout),
                    user=user,
                    group=group,
                    extra_groups=[],
                    umask=0o027,
                    start_new_session=True,
                )
            except OSError as error:
                log.error("%s can't be started: %s", unit.name, error)  # noqa: TRY400 - one line
                running.state = running.state.ended(time.monotonic())
                return
        running.child, running.state = child, running.state.started(time.monotonic())
        running.record = processes.record_of(unit.name, child.pid)
        if running.record:
            processes.save(running.record, self._layout.processes)
        log.info("started %s (pid %d)", unit.name, child.pid)

    def _probe(self, running: _Running) -> None:
        if running.ready:
            return
        if readiness.ready(running.unit.name, self._layout, self._settings):
            log.info("%s is ready", running.unit.name)
            running.ready = True

    def _provision(self) -> None:
        self._provisioned, told = bus_errand.send(PROVISION, self._layout, PROVISION_S)
        if self._provisioned:
            log.info("%s", told)
        else:
            log.warning("the bus is not provisioned yet: %s", told)

    def _stop_all(self) -> None:
        if not self._settings.witness:
            self._stop_guests()
        for running in reversed(self._running.values()):
            self._tell(f"stopping {running.unit.name}")
            if running.child is not None and running.record is not None:
                running.child.terminate()
                try:
                    running.child.wait(running.unit.grace_s)
                except subprocess.TimeoutExpired:
                    log.warning("%s did not end when asked to", running.unit.name)
                    running.child.kill()
                    running.child.wait()
            running.child = None
            processes.forget(running.unit.name, self._layout.processes)
        self._tell("stopped")

    def _stop_guests(self) -> None:
        self._tell("stopping guests")
        done, told = bus_errand.send(DRAIN, self._layout, DRAIN_S)
        if done:
            log.info("%s", told)
        else:
            log.warning("guests were not stopped by the compute service: %s", told)

    def _tell(self, stage: str) -> None:
        told = {
            "stage": stage,
            "processes": {
                name: {
                    "pid": running.child.pid if running.child else None,
                    "ready": running.ready,
                    "failures": running.state.failures,
                    "last_exit": running.last_exit,
                }
                for name, running in self._running.items()
            },
        }
        text = json.dumps(told)
        path = self._layout.status_file
        if stage != self._stage or not path.exists() or path.read_text() != text:
            self._stage = stage
            partial = path.with_suffix(".new")
            partial.write_text(text)
            partial.replace(path)


def supervise(layout: Layout, version: str) -> None:
    """Be the supervisor of an instance: its process's main function. `version` says what is
    installed, so that `up` sees whether it is the one it wants."""
    settings = load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})
    configure_logs(NAME, settings.log_level)
    machine.make_folders(layout)  # a reboot has taken those in /run
    prepare_libvirtd(layout)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(limits[0], min(FILES_LIMIT, limits[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limits[1]))
    record = processes.record_of(NAME, os.getpid(), version)
    before = processes.load(NAME, layout.processes)
    if before and processes.alive(before) and before != record:
        raise SystemExit(f"a supervisor runs already (pid {before.pid})")
    if record:
        processes.save(record, layout.processes)
    supervisor = Supervisor(layout, settings)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, supervisor.ask)
    supervisor.run()
