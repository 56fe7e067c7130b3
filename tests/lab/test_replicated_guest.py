"""A guest of a three-node cluster writes to a disk with two replicas, whatever befalls them.

A loop in the guest's shell writes stamped blocks and says which were acknowledged; its console's
log is read from outside. Meanwhile nodes die, hang and are cut off, of the storage network alone
too and one way; servers of the data path and services are killed, disks are slow, clocks jump and
bytes rot. After each fault the writer must go on (where its node died: the guest comes back) and
the replicas be in sync again, without one error in the guest; then it rests for a moment, and the
raw replicas are read on the hosts: every acknowledged block is there, and both are alike.

Faults come of `--seed`; `--point kill-replica+4.2` does one. A campaign is `--soak --seed 1
--faults 200`: each seed from the first on stands for one fault. `--results FILE` keeps what came
of them and leaves out what it has, so that it can be done in pieces (`--within SECONDS`).

How long writes waited is told in the end, by kind, and judged by people.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from trivet.testing.lab import survival
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.console import ConsoleTail, console_log
from trivet.testing.lab.node import until
from trivet.testing.lab.survival import Survived
from trivet.testing.lab.volume_faults import Harm, VolumeFault, befall, drawn, of_seed
from trivet.testing.lab.writing_guest import (
    BOUND_S,
    GUEST,
    WritingGuest,
    boots,
    create,
    disk,
    in_sync,
    kept,
    patiently,
    readmit,
    remove,
    scrub,
    stop,
    vm,
)

pytestmark = pytest.mark.root

log = logging.getLogger(__name__)

SAMPLE = 2


@pytest.fixture(scope="module")
def home(lab: Lab, tiny: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The guest, on a node of that name; one that is to go on in a further piece stays."""
    stays = request.config.getoption("--results") is not None
    at = kept(lab) if stays else None
    if at is None:
        remove(lab)
        at = create(lab, tiny)
    yield at
    if not stays:
        remove(lab)


@pytest.fixture
def guest(lab: Lab, home: str) -> Iterator[WritingGuest]:
    if not boots(lab):
        patiently(lab, lambda client: client.vms.start(GUEST))
        until("the guest has booted", lambda: boots(lab), BOUND_S)
    with ConsoleTail(console_log(lab.plan.layout(home), vm(lab).meta.id)) as tail:
        yield WritingGuest(lab, home, tail)


def faults(request: pytest.FixtureRequest) -> Iterator[tuple[int | None, VolumeFault]]:
    """Those that were asked for by their words, or some of the seed's, or those of many seeds."""
    option = request.config.getoption
    first = int(option("--seed"))
    if words := option("--point"):
        yield from ((None, VolumeFault.parse(word)) for word in words)
    elif not option("--soak"):
        yield from ((None, fault) for fault in drawn(first, SAMPLE))
    else:
        done = {seen.seed for seen in survival.read(option("--results"))}
        until_s = time.monotonic() + float(option("--within"))
        for seed in range(first, first + int(option("--faults"))):
            if time.monotonic() > until_s:
                return
            if seed not in done:
                yield seed, of_seed(seed)


def test_what_a_guest_wrote_is_on_both_replicas_whatever_befell_them(
    lab: Lab,
    guest: WritingGuest,
    request: pytest.FixtureRequest,
    tell_at_the_end: Callable[[str], None],
) -> None:
    until("the disk is in sync", lambda: in_sync(lab), BOUND_S)
    guest.write()
    file, here = request.config.getoption("--results"), list[Survived]()
    try:
        for seed, fault in faults(request):
            log.info("seed %s: %s", seed, fault)
            here.append(outcome(lab, guest, fault, seed))
            survival.add(file, here[-1])
            log.info("%s", here[-1])
            tell_at_the_end(str(here[-1]))
            assert not here[-1].wrong
    finally:
        tell_at_the_end(survival.figures(survival.read(file) or here))
    guest.rest()
    assert guest.ask("dmesg | grep -ci 'i/o erro[r]' || :") == "0"
    assert guest.errors() == []
    if file is None:
        stop(lab)
    guest.check()
    tell_at_the_end(f"{len(guest.acks)} acknowledged writes are on both replicas")


def outcome(lab: Lab, guest: WritingGuest, fault: VolumeFault, seed: int | None) -> Survived:
    """Do a fault; what came of it, also where something did not hold."""
    try:
        told = rotted(lab, guest, fault) if fault.harm is Harm.ROT else survived(lab, guest, fault)
    except Exception as error:
        log.exception("%s", fault)
        return Survived(str(fault), wrong=f"{type(error).__name__}: {error}"[:500], seed=seed)
    wait_s, synced_s = told
    beyond_s = max(0.0, wait_s - fault.seconds)
    return Survived(str(fault), round(wait_s, 2), round(beyond_s, 2), round(synced_s, 2), seed=seed)


def survived(lab: Lab, guest: WritingGuest, fault: VolumeFault) -> tuple[float, float]:
    """Do a fault, and wait until all is well; how long writes waited, and it took."""
    guest.goes_on()
    nodes, run, began = guest.nodes(), vm(lab).status.epoch, time.monotonic()
    befall(lab, fault, nodes, disk(lab).meta.id)
    ended = time.monotonic()
    if fault.ends_guest:
        until("the guest has booted again", lambda: boots(lab, run), BOUND_S)
        guest.write()
    guest.goes_on()
    until("the disk is in sync again", lambda: in_sync(lab), BOUND_S)
    synced_s = time.monotonic() - ended
    lab.wait_ready(lab.plan.workers, log.info, BOUND_S)
    guest.goes_on()
    waited_s = guest.longest_wait_s(began)
    assert guest.errors() == []
    compared(lab, guest)
    guest.write()
    return waited_s, synced_s


def rotted(lab: Lab, guest: WritingGuest, fault: VolumeFault) -> tuple[float, float]:
    """Let a byte rot between two looks at the disk, the second of which finds and mends it. The
    guest writes nothing meanwhile: what is written after a look is not known by it."""
    compared(lab, guest)
    scrub(lab)
    befall(lab, fault, guest.nodes(), disk(lab).meta.id)
    ended = time.monotonic()
    assert scrub(lab) == 1
    until("the disk is in sync again", lambda: in_sync(lab), BOUND_S)
    synced_s = time.monotonic() - ended
    guest.check()
    readmit(lab)
    guest.write()
    return 0.0, synced_s


def compared(lab: Lab, guest: WritingGuest) -> None:
    """Check the replicas at rest, both being in sync from before until after."""
    guest.rest()
    while True:
        until("the disk is in sync", lambda: in_sync(lab), BOUND_S)
        try:
            guest.check()
        except AssertionError:
            if in_sync(lab):
                raise
        else:
            return
