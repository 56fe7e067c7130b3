"""One point of the kill campaign: a part dies in the middle of work, and all must be well after.

What must hold, whatever was killed and whenever:

* the work that was asked for is finished (`BOUND_S` is for a machine under load: how long it
  took is told, and judged by people);
* there is one of each (a domain, a process, a volume a VM) and no orphan: what the instance
  holds after the second guest is gone is what it held before;
* the steady guest was not touched: the same process, the same epoch, answering; and every write
  it made ended well. Where a guest's own disk's path was cut (`qsd`, `nbdkit`), its writes may
  wait until the path is back, and still none fails.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass

from trivet.contracts.compute.vm import Power
from trivet.testing.lab.inventory import Inventory, difference
from trivet.testing.lab.node import Guest, LabNode, NotInTime, until
from trivet.testing.lab.schedule import ON_A_RUNNING_GUEST, During, Part, Point
from trivet.testing.lab.work import BOUND_S, Work

log = logging.getLogger(__name__)

STEADY = "steady"
OTHER = "other-"
WRITER = (
    "(n=0; while :; do n=$((n+1)); { echo $n >/data/w.new && sync && mv /data/w.new /data/w; }"
    " || echo WRITE-FAILED >>/data/failed; sleep 0.1; done) >/dev/null 2>&1 & :"
)
SLACK = {"threads": 12, "descriptors": 8, "tasks": 6, "consumers": 8}
"""A service that was started anew has not made all its threads yet, and one that was not may
have made some more; a leak that matters grows with the number of points."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Recovery:
    """How one point went; seconds from the kill. `writes_s`: until the steady guest wrote."""

    point: Point
    converged_s: float
    healthy_s: float
    writes_s: float
    clean_s: float

    def __str__(self) -> str:
        return (
            f"{self.point!s:28} {self.converged_s:9.1f} {self.healthy_s:9.1f}"
            f" {self.writes_s:9.1f} {self.clean_s:9.1f}"
        )


HEAD = f"{'point':28} {'converged':>9} {'healthy':>9} {'writes':>9} {'clean':>9}   (seconds)"


class Campaign:
    """Points on one node, with a steady guest that writes all the time."""

    def __init__(self, node: LabNode) -> None:
        self.node = node
        self.done: list[Recovery] = []
        self._steady: Guest | None = None
        self._before = Inventory()

    def prepare(self) -> None:
        """Have the steady guest, writing, and count what there is. Guests that a run which was cut
        left behind go first: the steady one's writer would meddle, and another would be taken for
        a point's own, and be missed when that is over."""
        left = [n for n in self.node.vm_names() if n == STEADY or n.startswith(OTHER)]
        for name in left:
            self.node.act(name, "delete")
        until("no guest is left", lambda: not set(left) & set(self.node.vm_names()), BOUND_S)
        self.node.create(STEADY)
        until("the steady guest has booted", lambda: self.node.ready(STEADY), 120)
        self._steady = self.node.guest(STEADY)
        self.node.console(self._steady, WRITER)
        until("it writes", lambda: self._writes() > 0, 20)
        self._before = settled(self.node)

    def run(self, point: Point) -> Recovery:
        """Do one point. Raises `AssertionError` with what did not hold."""
        log.info("%s begins", point)
        try:
            recovery = self._run(point)
        except Exception as error:
            log.error("%s: %s", point, error)  # noqa: TRY400 - the test shows where
            # What it left over is its fault alone, not that of the points after it.
            self._before = settled(self.node)
            raise
        log.info("%s", recovery)
        return recovery

    def _run(self, point: Point) -> Recovery:
        assert self._steady is not None
        other = f"{OTHER}{next(_numbers)}"
        work = Work(self.node, point.during, other)
        written = self._writes()
        work.begin()
        victim = self.node.guest(other) if point.during in ON_A_RUNNING_GUEST else self._steady
        work.go()
        time.sleep(point.after_s)
        killed = self.node.kill(point.part, victim)
        at = time.monotonic()
        if point.part is Part.SUPERVISOR:
            work.converged(at)
            self.node.trivet("up")
        converged = work.converged(at)
        until("all parts run", lambda: self._runs_again(point.part, victim, killed), BOUND_S)
        healthy = time.monotonic() - at
        self._check_steady(written)
        writes = time.monotonic() - at
        if victim is not self._steady:
            self._check_other(victim)
        if point.during is not During.STEADY:
            self.node.act(other, "delete")
        self._check_clean()
        recovery = Recovery(point, converged, healthy, writes, time.monotonic() - at)
        self.done.append(recovery)
        return recovery

    def table(self) -> str:
        """All recoveries so far, for people."""
        return "\n".join([HEAD, *map(str, self.done)])

    # --- what must hold ----------------------------------------------------------------------

    def _runs_again(self, part: Part, victim: Guest, killed: int) -> bool:
        pids = self.node.pids(part, victim)
        return len(pids) == 1 and pids[0] != killed and self.node.healthy()

    def _writes(self) -> int:
        assert self._steady is not None
        said = self.node.console(self._steady, "cat /data/w", BOUND_S).strip()
        return int(said) if said.isdigit() else 0

    def _check_steady(self, written: int) -> None:
        before = self._steady
        assert before is not None
        until("the steady guest answers", lambda: self.node.answers(before.address), BOUND_S)
        now = self.node.guest(STEADY)
        assert now == before, f"the steady guest was touched: {before} became {now}"
        until("the steady guest writes on", lambda: self._writes() > written + 1, BOUND_S)
        failed = self.node.console(before, "cat /data/failed; dmesg | grep -i 'i/o error'")
        assert "WRITE-FAILED" not in failed, failed
        assert "rror" not in failed.replace("can't open", ""), failed
        vm = self.node.vm(STEADY)
        assert vm is not None
        assert vm.status.power is Power.RUNNING

    def _check_other(self, guest: Guest) -> None:
        now = self.node.guest(guest.name)
        assert now == guest, f"the guest was touched: {guest} became {now}"
        said = self.node.console(guest, "date >/data/x; sync; dmesg | grep -i 'i/o error'", BOUND_S)
        assert "rror" not in said, said

    def _check_clean(self) -> None:
        found = ["never looked"]

        def clean() -> bool:
            found[:] = difference(self._before, self.node.everything(), SLACK)
            return not found

        try:
            until("nothing is left over", clean, BOUND_S, 1.0)
        except NotInTime as error:
            raise AssertionError("left over:\n" + "\n".join(found)) from error


def settled(node: LabNode) -> Inventory:
    """The inventory once two looks in a row agree."""
    looks = [node.everything(), Inventory()]

    def agree() -> bool:
        looks[:] = [node.everything(), looks[0]]
        return not difference(looks[1], looks[0], SLACK)

    until("the instance has settled", agree, BOUND_S, 2.0)
    return looks[0]
