"""A real node as a test has it: its API, its guests from outside, its processes to be killed.

Calls go through the API and are repeated while the node recovers, as a patient user would. What
is said of a guest (its process, its answers, what it writes) is seen from the machine, without
asking the suite that is under test.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trivet.client import Client
from trivet.client.config import load_config
from trivet.contracts.compute.vm import Vm
from trivet.contracts.errors import NAME_TAKEN, NOT_FOUND, Refused, Retry
from trivet.host import processes
from trivet.host.caller import client_file
from trivet.host.layout import SERVICES, Layout
from trivet.host.readiness import supervised
from trivet.host.units import units_of
from trivet.runtime.inside import PREFIX
from trivet.runtime.settings import Settings, load_settings
from trivet.testing.lab.bus import bus_inventory
from trivet.testing.lab.console import Console, console_socket
from trivet.testing.lab.inventory import Inventory
from trivet.testing.lab.machine import insides, machine, pids_for
from trivet.testing.lab.schedule import Part

ValueT = TypeVar("ValueT")

LOOK_S = 0.1
PATIENCE_S = 120.0
MEMORY_MIB = 128


class NotInTime(AssertionError):
    """Something did not come true within its bound."""


def until(what: str, holds: Callable[[], bool], seconds: float, look_s: float = LOOK_S) -> float:
    """Wait until `holds`; how many seconds it took. Raises `NotInTime`."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise NotInTime(f"not within {seconds:g} s: {what}")
        time.sleep(look_s)
    return time.monotonic() - began


@dataclass(frozen=True)
class Guest:
    """A running guest as seen from the machine: its VM, its process, its start."""

    name: str
    id: str
    pid: int
    epoch: int
    address: str
    volume: str


class LabNode:
    """One instance of Trivet on this machine, under the root folder of `layout`."""

    def __init__(self, layout: Layout, checkout: Path) -> None:
        self.layout = layout
        self._checkout = checkout

    # --- the node as a whole -----------------------------------------------------------------

    def trivet(self, *words: str, timeout_s: float = 600) -> str:
        """Run a command of the checkout on this instance; its output. Raises where it fails."""
        env = {**os.environ, "TRIVET_ROOT": str(self.layout.root)}
        env["TRIVET_CONFIG"] = str(client_file(self.layout, env).path)
        command = [str(self._checkout / "trivet"), *words]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise AssertionError(f"trivet {' '.join(words)}: {done.stderr[-2000:]}")
        return done.stdout

    @property
    def settings(self) -> Settings:
        """What the services are set to."""
        return load_settings({"TRIVET_SETTINGS": str(self.layout.settings_file)})

    def client(self) -> Client:
        """A client of its own: one a thread."""
        file = client_file(self.layout, os.environ).path
        return Client.of(load_config({"TRIVET_CONFIG": str(file)}))

    def patiently(self, call: Callable[[Client], ValueT], seconds: float) -> ValueT:
        """The result of a call, repeated while the node can't answer. Raises the last error."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while True:
                try:
                    return call(client)
                except Retry:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(LOOK_S)

    def healthy(self) -> bool:
        """Whether every part runs and every service answers."""
        try:
            with self.client() as client:
                return client.health()["status"] == "ok" and all(
                    supervised(self.layout, unit.name) for unit in units_of(self.layout)
                )
        except (Retry, Refused):
            return False

    # --- guests through the API --------------------------------------------------------------

    def create(self, name: str, seconds: float = PATIENCE_S) -> Vm:
        """Ask for a guest; one of that name from an attempt whose answer was lost is it."""
        spec = {
            "image": "tiny",
            "memory_mib": MEMORY_MIB,
            "nics": [{"network": "default"}],
        }

        def ask(client: Client) -> Vm:
            try:
                made: Vm = client.vms.create(name, spec=spec)
            except Refused as error:
                if error.code is not NAME_TAKEN:
                    raise
                made = client.vms.get(name)
            return made

        return self.patiently(ask, seconds)

    def vm(self, name: str, seconds: float = PATIENCE_S) -> Vm | None:
        """The VM as the API tells it; None: there is none."""

        def ask(client: Client) -> Vm | None:
            try:
                found: Vm = client.vms.get(name)
            except Refused as error:
                if error.code is not NOT_FOUND:
                    raise
                return None
            return found

        return self.patiently(ask, seconds)

    def vm_names(self, seconds: float = PATIENCE_S) -> list[str]:
        """The names of the project's VMs."""
        return [vm.meta.name for vm in self.patiently(lambda c: c.vms.list().items, seconds)]

    def act(self, name: str, verb: str, seconds: float = 30, **fields: object) -> None:
        """`start`, `stop`, `delete`, ... a guest; one that is gone is deleted."""

        def ask(client: Client) -> None:
            try:
                getattr(client.vms, verb)(name, **fields)
            except Refused as error:
                if (verb, error.code) != ("delete", NOT_FOUND):
                    raise

        self.patiently(ask, seconds)

    def ready(self, name: str) -> bool:
        """Whether the guest has booted, by what it says itself."""
        vm = self.vm(name)
        return vm is not None and vm.status.guest_ready and vm.status.phase == "ready"

    # --- guests from outside -----------------------------------------------------------------

    def guest(self, name: str) -> Guest:
        """The guest that runs now. Raises where it has no process, or more than one."""
        vm = self.vm(name)
        assert vm is not None, f"there is no VM {name}"
        found = pids_for(self.layout, "qemu-system", vm.meta.id)
        assert len(found) == 1, f"{name} has the processes {found}"
        address = next(a for a in vm.status.addresses if ":" not in a)
        volume = self.volume_id(vm.status.disks[0].volume or "")
        return Guest(name, vm.meta.id, found[0], vm.status.epoch, address, volume)

    def volume_id(self, name: str) -> str:
        """The id of a volume."""
        return str(self.patiently(lambda c: c.volumes.get(name), PATIENCE_S).meta.id)

    def answers(self, address: str) -> bool:
        """Whether an address answers a ping from the gateway's namespace."""
        for namespace in sorted(Path("/run/netns").glob(f"{self.layout.prefix}-gw-*")):
            ping = ("ping", "-n", "-c", "1", "-W", "2", address)
            command = ("ip", "netns", "exec", namespace.name, *ping)
            if not subprocess.run(command, capture_output=True, check=False).returncode:
                return True
        return False

    def console(self, guest: Guest, command: str, seconds: float = 20) -> str:
        """What a command prints on the serial console of a guest that waits at its shell."""
        with Console(console_socket(self.layout, guest.id)) as console:
            console.tell(command)
            return console.heard(seconds)[0]

    # --- its parts ---------------------------------------------------------------------------

    def pids(self, part: Part, guest: Guest) -> list[int]:
        """The processes of a part; of the data path, those of `guest`'s volume."""
        if part is Part.DNSMASQ:
            return pids_for(self.layout, "dnsmasq")
        if part is Part.QSD:
            return pids_for(self.layout, "qemu-storage-daemon", guest.volume)
        if part is Part.NBDKIT:
            return pids_for(self.layout, "nbdkit", f"{guest.volume}.raw")
        record = processes.load(part.value, self.layout.processes)
        return [record.pid] if record and processes.alive(record) else []

    def kill(self, part: Part, guest: Guest) -> int:
        """kill -9 the process of a part; its pid."""
        (pid,) = self.pids(part, guest)
        os.kill(pid, signal.SIGKILL)
        return pid

    def everything(self) -> Inventory:
        """What the instance has on the machine, on the bus and inside of its services."""
        held = machine(self.layout) | asyncio.run(bus_inventory(self.settings))
        return held | insides(self.layout) | Inventory.of(tasks=self.tasks())

    def tasks(self) -> list[str]:
        """What each service's loop is at, as it says itself when it is asked."""
        return [task for name in SERVICES for task in self._tasks_of(name)]

    def _tasks_of(self, service: str) -> list[str]:
        record = processes.load(service, self.layout.processes)
        path = self.layout.log_file(service)
        before = path.stat().st_size
        if record is None or not processes.send(record, signal.SIGUSR1):
            return []
        said: list[str] = []

        def told() -> bool:
            with path.open() as lines:
                lines.seek(before)
                said[:] = [line for line in lines if PREFIX in line and line.endswith("\n")]
            return bool(said)

        until(f"{service} says what it is at", told, 10, 0.02)
        counts = json.loads(json.loads(said[-1])["message"].removeprefix(PREFIX))["tasks"]
        return [f"{service} {task}" for task, n in counts.items() for _ in range(n)]
