"""Three real nodes: what a cluster goes on doing when one of them dies, hangs or is cut off.

Last come users who write while nodes die, hang, are cut off (one way, too) and have wrong clocks:
every name must be as its user knows it, every gateway must say the same, and each change was told
once. Those faults come of `--seed`; a failed run says them, and `--point kill-n2+4.2` does one.

Each test leaves the cluster whole. Guests are one, so that what is tried is the cluster; how long
things took is told in the end and judged by people.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing

import pytest

from trivet.client import Client
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.errors import Refused, Retry
from trivet.contracts.event import CloudEvent
from trivet.contracts.resource import Phase
from trivet.contracts.security.group import SECURITY_GROUP
from trivet.host import bus_admin
from trivet.host.readiness import gateway_url
from trivet.testing.lab.bus import connected
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.cluster_faults import NodeFault, drawn, strike
from trivet.testing.lab.node import NotInTime, until
from trivet.testing.lab.writers import OWNER, Writer, differences

pytestmark = pytest.mark.root

NODES = ("n1", "n2", "n3")
BOUND_S = 90.0
WRITES = 6
SAMPLE = 2
CAMPAIGN = 24
TOLD_S = 30.0
SAID_S = 20.0
GUEST = "lasting"
HOME = "n2"


log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def guest(lab: Lab, tiny: str) -> Vm:
    """A guest on the node `HOME`."""
    spec = {
        "image": tiny,
        "memory_mib": 128,
        "placement": {"nodes": [HOME]},
        "nics": [{"network": "default"}],
    }
    with lab.client() as client:
        try:
            client.vms.create(GUEST, spec=spec)
        except Refused:  # of an earlier run on a lab that was kept
            client.vms.get(GUEST)
    until(f"{GUEST} runs", lambda: vm(lab).status.power is Power.RUNNING, BOUND_S)
    return vm(lab)


def vm(lab: Lab) -> Vm:
    with lab.client() as client:
        found: Vm = client.vms.get(GUEST)
    return found


def phase_is(lab: Lab, name: str, phase: Phase) -> Callable[[], bool]:
    return lambda: lab.phases().get(name) is phase


def whole(lab: Lab) -> None:
    """Wait until all nodes do their work again."""
    lab.wait_ready(NODES, log.info, BOUND_S)
    until("the bus has all its copies", lambda: copies(lab) == 3, BOUND_S, 0.5)


def bus(lab: Lab) -> dict[str, dict[str, object]]:
    """What the bus says of the copies of each stream."""
    on = next(name for name in NODES if lab.machine(name).pid and not lab.machine(name).paused)
    told = asyncio.run(bus_admin.streams(lab.settings(on)))
    return {name: info["cluster"] for name, info in told.items() if info is not None}


def copies(lab: Lab) -> int:
    """How many good copies the stream has that has the fewest."""
    try:
        told = bus(lab)
    except Retry:
        return 0
    good = [
        1 + sum(r["current"] and not r.get("offline") for r in cluster.get("replicas") or [])
        for cluster in told.values()  # type: ignore[attr-defined]
    ]
    return min(good, default=0)


class OneWriter:
    """Writes one label after the other into the guest's record, through the API, and remembers
    the last one that was acknowledged."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.acknowledged = 0
        self.longest_s = 0.0

    def __enter__(self) -> OneWriter:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(BOUND_S)

    def _write(self) -> None:
        with self._lab.client() as client:
            while not self._stop.is_set():
                began, number = time.monotonic(), self.acknowledged + 1
                if self._acknowledged(client, number):
                    self.acknowledged = number
                    self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _acknowledged(self, client: Client, number: int) -> bool:
        while not self._stop.is_set():
            try:
                client.vms.edit(GUEST, labels={"written": str(number)})
            except Retry:
                time.sleep(0.1)
            else:
                return True
        return False

    def goes_on(self) -> None:
        """Wait until some more were acknowledged."""
        wanted = self.acknowledged + WRITES
        until("writes are acknowledged", lambda: self.acknowledged >= wanted, BOUND_S)


def test_every_stream_has_three_copies_and_every_node_answers(lab: Lab) -> None:
    whole(lab)
    for name in NODES:
        said = lab.run(name, "trivet", "node", "list")
        assert all(node in said.stdout for node in NODES), said
        assert lab.run(name, "hostname").stdout.strip() == name


def test_a_guest_talks_to_the_gateway_of_its_node(lab: Lab, guest: Vm) -> None:
    assert guest.status.node == HOME
    address = next(a for a in guest.status.addresses if ":" not in a)
    script = (
        f"for n in $(ls /run/netns); do ip netns exec $n ping -c1 -W2 {address} && exit 0; done"
    )
    answers = lambda: lab.run(HOME, "sh", "-c", f"{script}; exit 1").returncode == 0  # noqa: E731
    until("it answers", answers, BOUND_S, 1.0)


@pytest.mark.parametrize("which", ["leader", pytest.param("gateway", marks=pytest.mark.soak)])
def test_a_node_dies_and_nothing_acknowledged_is_lost(
    lab: Lab, guest: Vm, which: str, tell_at_the_end: Callable[[str], None]
) -> None:
    leader = str(bus(lab)["KV_compute"]["leader"])
    name = leader if which == "leader" else NODES[0]
    with OneWriter(lab) as writer:
        writer.goes_on()
        lab.kill(name)
        assert lab.machine(name).pids() == []
        began = time.monotonic()
        writer.goes_on()
        until(f"{name} is missed", phase_is(lab, name, Phase.UNKNOWN), BOUND_S)
        missed_s = time.monotonic() - began
    assert int(vm(lab).meta.labels["written"]) >= writer.acknowledged
    tell_at_the_end(
        f"{name} ({which}) died: longest write {writer.longest_s:.1f} s, missed {missed_s:.1f} s"
    )
    lab.start(name)
    whole(lab)
    assert int(vm(lab).meta.labels["written"]) >= writer.acknowledged


def test_a_dead_nodes_guest_is_unknown_and_stays_where_it_was(lab: Lab, guest: Vm) -> None:
    lab.kill(HOME)
    until("its guest is unknown", lambda: vm(lab).status.power is Power.UNKNOWN, BOUND_S)
    assert vm(lab).status.node == HOME
    lab.start(HOME)
    until("it runs again there", lambda: vm(lab).status.power is Power.RUNNING, BOUND_S)
    assert vm(lab).status.node == HOME
    whole(lab)


def test_a_node_that_hangs_is_missed_and_found_again(lab: Lab, guest: Vm) -> None:
    before = vm(lab).status
    lab.pause(HOME)
    assert lab.machine(HOME).paused
    until(f"{HOME} is missed", phase_is(lab, HOME, Phase.UNKNOWN), BOUND_S)
    lab.resume(HOME)
    whole(lab)
    until("its guest is known again", lambda: vm(lab).status.power is Power.RUNNING, BOUND_S)
    # Nothing was done to it meanwhile: it is the same run of the same guest.
    assert vm(lab).status.epoch == before.epoch
    assert vm(lab).status.started_at == before.started_at


@pytest.mark.parametrize("one_way", [pytest.param(False, marks=pytest.mark.soak), True])
def test_a_node_that_is_cut_off_is_missed_and_found_again(
    lab: Lab, guest: Vm, one_way: bool
) -> None:
    lab.cut("n3", ("n1", "n2"), ("mgmt",), one_way=one_way)
    reach = ("ping", "-c", "1", "-W", "1")
    assert lab.run("n3", *reach, lab.plan.address("n1")).returncode != 0
    assert lab.run("n3", *reach, lab.plan.address("n1", "storage")).returncode == 0
    assert lab.run("n1", *reach, lab.plan.address("n2")).returncode == 0
    with OneWriter(lab) as writer:
        writer.goes_on()
    until("n3 is missed", phase_is(lab, "n3", Phase.UNKNOWN), BOUND_S)
    lab.heal()
    assert lab.switch.drops() == set()
    whole(lab)


def test_words_may_be_repeated(lab: Lab) -> None:
    lab.start("n1")
    lab.resume("n1")
    lab.heal()
    for _ in range(2):
        lab.cut("n3", ("n2",), ("storage",), one_way=True)
    assert len(lab.switch.drops()) == 1
    for _ in range(2):
        lab.kill("n3")
    lab.heal()
    lab.up(log.info)
    whole(lab)


# --- users who write while nodes fail ------------------------------------------------------------


def through(lab: Lab, name: str, *, retry_s: float = 10.0) -> Client:
    """A client of one node's gateway, which turns to the others where it is away."""
    names = [name, *(n for n in lab.plan.workers if n != name)]
    first, *others = (gateway_url(lab.settings(n)) for n in names)
    return Client(first, lab.token(), lab.plan.base.ca_file, other_urls=others, retry_s=retry_s)


def faults(request: pytest.FixtureRequest, lab: Lab) -> list[NodeFault]:
    """Those that were asked for by their words, or some of the seed's."""
    if words := request.config.getoption("--point"):
        return [NodeFault.parse(word) for word in words]
    count = CAMPAIGN if request.config.getoption("--soak") else SAMPLE
    return drawn(request.config.getoption("--seed"), count, lab.plan.workers)


async def told(lab: Lab) -> list[CloudEvent]:
    """All events that were told so far."""
    found: list[CloudEvent] = []
    async with connected(lab.settings(lab.plan.workers[0])) as bus:
        last = await bus.last_event_seq()
        async with aclosing(bus.events("trivet.evt.>", since_seq=1)) as messages:
            async for message in messages:
                found.append(CloudEvent.model_validate_json(message.data))
                if message.seq >= last:
                    break
    return found


@pytest.fixture
def writers(lab: Lab) -> Iterator[list[Writer]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Writer(number, lambda n=name: through(lab, n), number))
            for number, name in enumerate(lab.plan.workers)
        ]


def test_users_find_what_they_wrote_whatever_befell_the_nodes(
    lab: Lab,
    writers: list[Writer],
    request: pytest.FixtureRequest,
    tell_at_the_end: Callable[[str], None],
) -> None:
    chosen = faults(request, lab)
    for fault in chosen:
        log.info("%s", fault)
        written = sum(len(w.wanted) for w in writers)
        strike(lab, fault)
        lab.wait_ready(lab.plan.workers, log.info, BOUND_S)
        until(
            "users get on with their work",
            lambda least=written + 3: sum(len(w.wanted) for w in writers) > least,
            BOUND_S,
        )
        assert [w.failed for w in writers if w.failed] == []
    for writer in writers:
        writer.stop()
    assert all(writer.ended for writer in writers)
    for name in lab.plan.workers:
        with through(lab, name) as client:
            says_what_was_written(name, client, writers)
    check_events(lab)
    names = sum(len(w.wanted) for w in writers)
    longest_s = max(w.longest_s for w in writers)
    tell_at_the_end(f"{' '.join(map(str, chosen))}: {names} names, longest call {longest_s:.1f} s")


def says_what_was_written(name: str, client: Client, writers: list[Writer]) -> None:
    """Wait until a node's answers are what its users know; a node may lag for a while."""
    said: list[str] = []

    def alike() -> bool:
        said[:] = differences(writers, client)
        return not said

    try:
        until(f"{name} says what was written", alike, SAID_S)
    except NotInTime as error:
        raise AssertionError(f"{name} does not say what was written: {said}") from error


def check_events(lab: Lab) -> None:
    """Each group that is there was born once in the stream, too, and no event came twice."""
    with lab.client() as client:
        groups = list(client.kind(SECURITY_GROUP).list())
    mine = {g.meta.id: g.meta.name for g in groups if OWNER in g.meta.labels}
    wrong: dict[str, int] = {}

    def all_told() -> bool:
        events = asyncio.run(told(lab))
        assert [i for i, n in Counter(e.id for e in events).items() if n > 1] == []
        births = Counter(e.subject for e in events if e.type.endswith("created.v1"))
        wrong.clear()
        wrong.update({name: births[id_] for id_, name in mine.items() if births[id_] != 1})
        return not wrong

    try:
        until("every group's birth is told once", all_told, TOLD_S, 1.0)
    except NotInTime as error:
        raise AssertionError(f"born so many times: {wrong}") from error
