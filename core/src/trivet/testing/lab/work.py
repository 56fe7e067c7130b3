"""What goes on while a part is killed: an operation on a guest of its own, and when it is done.

It runs in a thread of its own, for the call itself may be what is cut. Each call is repeated until
it is answered, as a patient user would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from trivet.client import Client
from trivet.contracts.compute.vm import Power
from trivet.contracts.errors import NAME_TAKEN, NOT_FOUND, Code, Refused
from trivet.testing.lab.node import LabNode, until
from trivet.testing.lab.schedule import ON_A_RUNNING_GUEST, During

BOUND_S = 180.0
BOOT_S = 120.0
MORE_DISK = {"name": "more", "size_gib": 1}
MORE_NIC = {"name": "more", "network": "default"}


@contextmanager
def accepting(code: Code) -> Iterator[None]:
    """A refusal with that code is as good as the answer: the call was done before."""
    try:
        yield
    except Refused as error:
        if error.code is not code:
            raise


class Work:
    """One operation on the guest `name`, which it makes where the operation needs one."""

    def __init__(self, node: LabNode, during: During, name: str) -> None:
        self._node = node
        self._during = during
        self._name = name
        self._epoch = 0
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._guarded, daemon=True)

    def begin(self) -> None:
        """Prepare it."""
        if self._during in (During.DELETE, During.RESTART, *ON_A_RUNNING_GUEST):
            self._node.create(self._name)
            until(f"{self._name} has booted", lambda: self._node.ready(self._name), BOOT_S)
            vm = self._node.vm(self._name)
            self._epoch = vm.status.epoch if vm else 0

    def go(self) -> None:
        """Let it run."""
        self._thread.start()

    def converged(self, since: float) -> float:
        """Wait until it is as it was asked for; seconds since `since`."""
        self._thread.join(2 * BOUND_S)
        if self._failed:
            raise AssertionError(f"{self._during}: {self._failed[0]!r}") from self._failed[0]
        until(f"{self._during} of {self._name} is done", self._is_done(), BOUND_S)
        return time.monotonic() - since

    def _guarded(self) -> None:
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - told in `converged`, by the test's own thread
            self._failed.append(error)

    def _act(self) -> None:
        match self._during:
            case During.CREATE:
                self._node.create(self._name, BOUND_S)
            case During.DELETE:
                self._node.act(self._name, "delete", BOUND_S)
            case During.RESTART:
                self._node.act(self._name, "stop", BOUND_S)
                until(f"{self._name} is off", lambda: self._power() is Power.STOPPED, BOUND_S)
                self._node.act(self._name, "start", BOUND_S)
            case During.SNAPSHOT:
                self._snapshot()
            case During.PLUG_DISK:
                self._plug("disks", MORE_DISK)
            case During.PLUG_NIC:
                self._plug("nics", MORE_NIC)

    def _snapshot(self) -> None:
        """Take one, and drop it once it is whole: it keeps the guest's disks."""
        name = f"{self._name}-s"

        def take(client: Client) -> None:
            with accepting(NAME_TAKEN):
                client.vms.snapshot(self._name, snapshot=name)

        def phase(client: Client) -> str | None:
            with accepting(NOT_FOUND):
                return str(client.snapshots.get(name).status.phase)
            return None

        def drop(client: Client) -> None:
            with accepting(NOT_FOUND):
                client.snapshots.delete(name)

        self._node.patiently(take, BOUND_S)
        until(f"{name} is whole", lambda: self._node.patiently(phase, BOUND_S) == "ready", BOUND_S)
        self._node.patiently(drop, BOUND_S)
        until(f"{name} is gone", lambda: self._node.patiently(phase, BOUND_S) is None, BOUND_S)

    def _plug(self, field: str, more: Mapping[str, object]) -> None:
        """Plug it in, and take it away once the guest has it."""
        vm = self._node.vm(self._name)
        assert vm is not None
        has = [
            thing.model_dump(mode="json", exclude_defaults=True)
            for thing in getattr(vm.spec, field)
        ]
        for wanted in ([*has, more], has):
            self._node.act(self._name, "edit", BOUND_S, spec={field: wanted})
            there = partial(self._has, field, len(wanted))
            until(f"{self._name} has {len(wanted)} {field}", there, BOUND_S)

    def _has(self, field: str, number: int) -> bool:
        """Whether the guest has so many, by what its status says, and no other is on the way."""
        vm = self._node.vm(self._name)
        if vm is None or not vm.settled():
            return False
        there = [d.attached for d in vm.status.disks]
        if field == "nics":
            there = [n.plugged for n in vm.status.nics]
        return len(there) == number and all(there)

    def _power(self) -> Power | None:
        vm = self._node.vm(self._name)
        return vm.status.power if vm else None

    def _is_done(self) -> Callable[[], bool]:
        def restarted() -> bool:
            vm = self._node.vm(self._name)
            return vm is not None and vm.status.epoch > self._epoch and vm.status.guest_ready

        done = {
            During.CREATE: lambda: self._node.ready(self._name),
            During.DELETE: lambda: self._node.vm(self._name) is None,
            During.RESTART: restarted,
        }
        return done.get(self._during, lambda: True)
