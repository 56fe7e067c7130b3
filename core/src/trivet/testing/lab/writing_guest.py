"""A guest of a cluster that writes stamped blocks to a disk with two replicas, and its check.

It runs where its image is, so that nothing but the disk that it writes to is elsewhere; of that,
too, one replica is there. What it was told is read from its console's log, from outside, and what
is on its disk from the replicas' files on the hosts, past everything that served them: while it
runs it is asked to write no more for that moment, and to flush.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TypeVar

from trivet.client import Client
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.errors import NOT_FOUND, Refused, Retry
from trivet.contracts.resource import Phase
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.console import Console, ConsoleTail, console_socket
from trivet.testing.lab.node import until
from trivet.testing.lab.stamped_blocks import (
    FAILED,
    STOP,
    acked,
    newest_stamp,
    unlike,
    writer,
    wrong_blocks,
)
from trivet.testing.lab.volume_faults import Whose, replica_file

GUEST = "writing"
DISK = f"{GUEST}-data"
DEVICE = "/dev/vdb"
BOUND_S = 120.0
AGAIN = 5
"""So many writes are acknowledged before a fault and after it."""
APART = 1000
"""A writer's first stamp is so much later than what an earlier one is known to have written."""
PIECE_BYTES = 2**20

ValueT = TypeVar("ValueT")


class WritingGuest:
    """The guest, what it was heard to say, and the disk that it writes to."""

    def __init__(self, lab: Lab, home: str, tail: ConsoleTail) -> None:
        self._lab = lab
        self._home = home
        self._tail = tail
        self.id = vm(lab).meta.id
        with replica_file(lab, home, disk(lab).meta.id).open("rb") as file:
            # An earlier writer's stamps must not be taken for this one's.
            self._known = newest_stamp(partial(_read_at, file.fileno()))

    @property
    def acks(self) -> list[tuple[float, int]]:
        """What was acknowledged, and when that was heard."""
        return [(at, stamp) for at, line in list(self._tail.lines) for stamp in acked(line)]

    def ask(self, command: str) -> str:
        """What a command of the guest prints."""
        layout = self._lab.plan.layout(self._home)
        with Console(console_socket(layout, self.id)) as console:
            return console.ask(command, BOUND_S)

    def write(self) -> None:
        """Have it begin to write, and wait until it does."""
        self._known = max([self._known, *(stamp for _, stamp in self.acks)]) + APART
        self.ask(writer(DEVICE, self._known))
        self.goes_on()

    def rest(self) -> None:
        """Have it write no more; all it wrote is flushed."""
        self.ask(STOP)

    def goes_on(self) -> None:
        """Wait until some more is acknowledged."""
        wanted = len(self.acks) + AGAIN
        until("the guest writes", lambda: len(self.acks) >= wanted, BOUND_S)

    def nodes(self) -> dict[Whose, str]:
        """Who has which part now."""
        others = [r.node for r in disk(self._lab).status.replicas if r.node != self._home]
        assert len(others) == 1
        return {Whose.HOLDER: self._home, Whose.REPLICA: others[0]}

    def errors(self) -> list[str]:
        """Lines of its console that tell of an error."""
        bad = (FAILED.lower(), "i/o error", "kernel panic", "call trace")
        lines = [line for _, line in list(self._tail.lines)]
        return [line for line in lines if any(word in line.lower() for word in bad)]

    def longest_wait_s(self, since: float) -> float:
        """The longest time between two acknowledgements, the later one after `since`."""
        moments = [at for at, _ in self.acks]
        gaps = (later - at for at, later in pairwise(moments) if later >= since)
        return max(gaps, default=0.0)

    def check(self) -> None:
        """That both replicas have all that was acknowledged, and are alike, while nobody writes.
        They are read where they lie, past everything that served them."""
        acknowledged = [stamp for _, stamp in self.acks]
        volume = disk(self._lab)
        nodes = [replica.node for replica in volume.status.replicas]
        one, other = (replica_file(self._lab, node, volume.meta.id) for node in nodes)
        with one.open("rb") as first, other.open("rb") as second:
            here, there = (partial(_read_at, file.fileno()) for file in (first, second))
            for read in (here, there):
                assert wrong_blocks(acknowledged, read) == []
            pieces = {at for f in (first, second) for at in _pieces(f.fileno())}
            assert unlike(sorted(pieces), here, there, PIECE_BYTES) == []
        assert acknowledged


def patiently(lab: Lab, call: Callable[[Client], ValueT]) -> ValueT:
    """The answer to a call, made again while the cluster can't answer."""
    deadline = time.monotonic() + BOUND_S
    with lab.client() as client:
        while True:
            try:
                return call(client)
            except Retry:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)


def vm(lab: Lab) -> Vm:
    """The guest, as the cluster tells of it."""
    found: Vm = patiently(lab, lambda client: client.vms.get(GUEST))
    return found


def disk(lab: Lab) -> Volume:
    """Its disk."""
    found: Volume = patiently(lab, lambda client: client.volumes.get(DISK))
    return found


def in_sync(lab: Lab) -> bool:
    """Whether both replicas are known to have everything, and no other one is there."""
    status = disk(lab).status
    good = [r for r in status.replicas if r.state is ReplicaState.IN_SYNC and not r.suspect]
    return status.phase is Phase.READY and len(good) == len(status.replicas) == 2


def boots(lab: Lab, after: int = 0) -> bool:
    """Whether the guest has booted, in a run later than `after`."""
    status = vm(lab).status
    running = status.power is Power.RUNNING and status.phase is Phase.READY
    return running and status.guest_ready and status.epoch > after


def create(lab: Lab, image: str) -> str:
    """Make the guest, with a replica of its disk where it runs; the name of that node."""
    of_image = patiently(lab, lambda client: client.images.get(image))
    root = patiently(lab, lambda client: client.volumes.get(of_image.status.volume))
    at = str(root.status.replicas[0].node)
    spec = {
        "image": image,
        "memory_mib": 128,
        "placement": {"nodes": [at]},
        "disks": [{"size_gib": 1}, {"name": "data", "size_gib": 1, "replicas": 2}],
    }
    patiently(lab, lambda client: client.vms.create(GUEST, spec=spec))
    until("the guest has booted", lambda: boots(lab), BOUND_S)
    nodes = [replica.node for replica in disk(lab).status.replicas]
    if at not in nodes:
        move = {"source": nodes[0], "target": at}
        patiently(lab, lambda client: client.volumes.move_replica(DISK, **move))
        until("a replica is where the guest is", lambda: _moved(lab, at), BOUND_S)
    return at


def kept(lab: Lab) -> str | None:
    """The node of a guest that an earlier run has left, and whose disk is whole."""
    with lab.client() as client:
        if not any(v.meta.name == GUEST for v in client.vms.list().items):
            return None
    at = str(vm(lab).status.node)
    return at if boots(lab) and _moved(lab, at) else None


def remove(lab: Lab) -> None:
    """Have no guest, and none of its disks; what an earlier run left goes, too."""

    def gone(client: Client) -> bool:
        try:
            client.vms.delete(GUEST)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise
        return not any(v.meta.name == DISK for v in client.volumes.list().items)

    until("there is no guest", lambda: patiently(lab, gone), BOUND_S, 0.5)


def stop(lab: Lab) -> None:
    """Stop the guest in order, and wait until its disk is nobody's, and whole."""
    patiently(lab, lambda client: client.vms.stop(GUEST))
    until("the guest is off", lambda: vm(lab).status.power is Power.STOPPED, BOUND_S)
    until("its disk is free", lambda: disk(lab).status.attachment is None, BOUND_S)
    until("its disk is in sync", lambda: in_sync(lab), BOUND_S)


def scrub(lab: Lab) -> int:
    """Have the disk scrubbed to the end; how many wrong blocks were found."""
    before = disk(lab).status.scrub
    patiently(lab, lambda client: client.volumes.scrub(DISK))

    def over() -> bool:
        now = disk(lab).status.scrub
        return now.at != before.at and not now.asked

    until("it is scrubbed", over, BOUND_S)
    return disk(lab).status.scrub.found_blocks - before.found_blocks


def readmit(lab: Lab) -> None:
    """Take the disks of the replicas back: what rotted there is mended, and was no fault of
    theirs. Else they would be emptied after a few."""
    disks = [replica.disk for replica in disk(lab).status.replicas]

    def back(client: Client) -> None:
        for name in disks:
            client.disks.readmit(name)

    patiently(lab, back)


def _moved(lab: Lab, at: str) -> bool:
    return in_sync(lab) and at in [replica.node for replica in disk(lab).status.replicas]


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    return os.pread(descriptor, size, offset)


def _pieces(descriptor: int) -> Iterator[int]:
    """Where the pieces of a file begin that are not all hole."""
    at = 0
    while True:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA) // PIECE_BYTES * PIECE_BYTES
        except OSError:  # nothing but hole is left
            return
        yield at
        at += PIECE_BYTES
