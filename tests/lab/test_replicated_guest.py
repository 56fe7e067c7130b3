"""A guest of a three-node cluster writes to a disk with two replicas, whatever befalls them.

A loop in the guest's shell writes stamped blocks and says which were acknowledged; its console's
log is read from outside. Meanwhile nodes die, hang and are cut off, of the storage network alone
too and one way, and servers of the data path are killed. After each fault the writer must go on
(where its node died: the guest comes back) and the replicas be in sync again, without one error in
the guest. In the end the raw replicas are read on the hosts: every acknowledged block is there,
and both are alike. Faults come of `--seed`; `--point kill-replica+4.2` does one.

How long writes waited is told in the end and judged by people.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from trivet.client import Client
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.errors import NOT_FOUND, Refused, Retry
from trivet.contracts.resource import Phase
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.console import Console, ConsoleTail, console_log, console_socket
from trivet.testing.lab.node import until
from trivet.testing.lab.stamped_blocks import FAILED, STOP, acked, unlike, writer, wrong_blocks
from trivet.testing.lab.volume_faults import VolumeFault, Whose, befall, drawn

pytestmark = pytest.mark.root

log = logging.getLogger(__name__)

GUEST = "writing"
DISK = f"{GUEST}-data"
DEVICE = "/dev/vdb"
BOUND_S = 120.0
AGAIN = 10
"""So many writes are acknowledged before a fault and after it."""
APART = 1000
"""A writer's first stamp is so much later than what an earlier one is known to have written."""
SAMPLE = 2
CAMPAIGN = 24

ValueT = TypeVar("ValueT")


class WritingGuest:
    """The guest, what it was heard to say, and the disk that it writes to."""

    def __init__(self, lab: Lab, home: str, tail: ConsoleTail) -> None:
        self._lab = lab
        self._home = home
        self._tail = tail
        self.id = vm(lab).meta.id

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
        known = [stamp for _, stamp in self.acks]
        self.ask(writer(DEVICE, max(known, default=0) + APART))
        self.goes_on()

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
    found: Vm = patiently(lab, lambda client: client.vms.get(GUEST))
    return found


def disk(lab: Lab) -> Volume:
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


@pytest.fixture(scope="module")
def home(lab: Lab, tiny: str) -> Iterator[str]:
    """The guest, on the node where its image is, so that nothing but the disk that it writes to
    is elsewhere; of that, too, one replica is there. The name of the node."""
    image = patiently(lab, lambda client: client.images.get(tiny))
    root = patiently(lab, lambda client: client.volumes.get(image.status.volume))
    at = str(root.status.replicas[0].node)
    spec = {
        "image": tiny,
        "memory_mib": 128,
        "placement": {"nodes": [at]},
        "disks": [{"size_gib": 1}, {"name": "data", "size_gib": 1, "replicas": 2}],
    }
    remove(lab)
    patiently(lab, lambda client: client.vms.create(GUEST, spec=spec))
    until("the guest has booted", lambda: boots(lab), BOUND_S)
    nodes = [replica.node for replica in disk(lab).status.replicas]
    if at not in nodes:
        move = {"source": nodes[0], "target": at}
        patiently(lab, lambda client: client.volumes.move_replica(DISK, **move))
        until("a replica is where the guest is", lambda: moved(lab, at), BOUND_S)
    yield at
    remove(lab)


def moved(lab: Lab, at: str) -> bool:
    return in_sync(lab) and at in [replica.node for replica in disk(lab).status.replicas]


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


@pytest.fixture
def guest(lab: Lab, home: str) -> Iterator[WritingGuest]:
    if not boots(lab):
        patiently(lab, lambda client: client.vms.start(GUEST))
        until("the guest has booted", lambda: boots(lab), BOUND_S)
    with ConsoleTail(console_log(lab.plan.layout(home), vm(lab).meta.id)) as tail:
        yield WritingGuest(lab, home, tail)


def faults(request: pytest.FixtureRequest) -> list[VolumeFault]:
    """Those that were asked for by their words, or some of the seed's."""
    if words := request.config.getoption("--point"):
        return [VolumeFault.parse(word) for word in words]
    count = CAMPAIGN if request.config.getoption("--soak") else SAMPLE
    return drawn(request.config.getoption("--seed"), count)


def test_what_a_guest_wrote_is_on_both_replicas_whatever_befell_them(
    lab: Lab,
    guest: WritingGuest,
    request: pytest.FixtureRequest,
    tell_at_the_end: Callable[[str], None],
) -> None:
    until("the disk is in sync", lambda: in_sync(lab), BOUND_S)
    guest.write()
    for fault in faults(request):
        log.info("%s", fault)
        told = survived(lab, guest, fault)
        log.info("%s", told)
        tell_at_the_end(told)
    guest.ask(STOP)
    assert guest.ask("dmesg | grep -ci 'i/o erro[r]' || :") == "0"
    assert guest.errors() == []
    acknowledged = [stamp for _, stamp in guest.acks]
    stop(lab)
    check_replicas(lab, acknowledged)
    tell_at_the_end(f"{len(acknowledged)} acknowledged writes are on both replicas")


def survived(lab: Lab, guest: WritingGuest, fault: VolumeFault) -> str:
    """Do a fault, and wait until all is well; how long that took, for people."""
    guest.goes_on()
    nodes, run, began = guest.nodes(), vm(lab).status.epoch, time.monotonic()
    befall(lab, fault, nodes, disk(lab).meta.id)
    ended = time.monotonic()
    lab.wait_ready(lab.plan.workers, log.info, BOUND_S)
    if fault.ends_guest:
        until("the guest has booted again", lambda: boots(lab, run), BOUND_S)
        guest.write()
    guest.goes_on()
    until("the disk is in sync again", lambda: in_sync(lab), BOUND_S)
    synced_s = time.monotonic() - ended
    guest.goes_on()
    assert guest.errors() == []
    waited_s = guest.longest_wait_s(began)
    return f"{fault!s:24} longest wait {waited_s:5.1f} s, in sync after {synced_s:5.1f} s"


def stop(lab: Lab) -> None:
    """Stop the guest in order, and wait until its disk is nobody's, and whole."""
    patiently(lab, lambda client: client.vms.stop(GUEST))
    until("the guest is off", lambda: vm(lab).status.power is Power.STOPPED, BOUND_S)
    until("its disk is free", lambda: disk(lab).status.attachment is None, BOUND_S)
    until("its disk is in sync", lambda: in_sync(lab), BOUND_S)


def check_replicas(lab: Lab, acknowledged: list[int]) -> None:
    """Read them where they lie, past everything that served them."""
    volume = disk(lab)
    paths = [replica_file(lab, r.node, volume.meta.id) for r in volume.status.replicas]
    with paths[0].open("rb") as file, paths[1].open("rb") as other_file:
        one, other = partial(read_at, file.fileno()), partial(read_at, other_file.fileno())
        assert wrong_blocks(acknowledged, one) == []
        assert wrong_blocks(acknowledged, other) == []
        assert unlike(volume.status.size_bytes, one, other) == []
    assert acknowledged


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    return os.pread(descriptor, size, offset)


def replica_file(lab: Lab, node: str, volume: str) -> Path:
    """The file of a replica, as seen from outside the node that has mounted it."""
    inside = Path(f"/proc/{lab.machine(node).pid}/root")
    (found,) = inside.joinpath(*lab.plan.layout(node).state.parts[1:]).glob(
        f"**/pools/*/replicas/{volume}.raw"
    )
    return found
