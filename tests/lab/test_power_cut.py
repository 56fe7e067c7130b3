"""The node on a disk of its own, which fills up, and whose power is cut in the middle of work.

A full disk refuses what can't be kept, and all goes on by itself once there is room.

After a power cut what was acknowledged is there:

What the API answered with success, what events and the audit trail told, and what a guest was
told to be on its disk. Everything that was not synced by then is lost (`CutGround` says how).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trivet.client import Client
from trivet.contracts.errors import NOT_FOUND, Refused, Retry, TrivetError
from trivet.contracts.event import CloudEvent
from trivet.host.layout import Layout
from trivet.testing.lab.bus import connected
from trivet.testing.lab.node import LabNode, until
from trivet.testing.lab.power_cut import CutGround

pytestmark = pytest.mark.root

TOP = Path(__file__).parents[2]
GUEST = "writer"
CUTS = 5
WORKERS = 3
BOUND_S = 180.0
WRITER = (
    "(n=0; while :; do n=$((n+1)); echo $n >/data/w.new && sync && mv /data/w.new /data/w"
    " && sync && echo synced:$n >/dev/console; sleep 0.1; done) & :"
)


@pytest.fixture(scope="module")
def ground() -> Iterator[CutGround]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = CutGround()
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def node(ground: CutGround) -> Iterator[LabNode]:
    made = LabNode(Layout(ground.root), TOP)
    try:
        made.trivet("up")
        made.trivet("image", "build-tiny")
        yield made
    finally:
        made.trivet("down", "--purge")


@dataclass
class Work:
    """Creates and deletes over the API until the power goes; only what was answered counts."""

    node: LabNode
    prefix: str
    created: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    asked_to_delete: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WORKERS)]
        for thread in threads:
            thread.start()
        return threads

    def _work(self, worker: int) -> None:
        with self.node.client() as client:
            for n in itertools.count():
                if self.stop.is_set():
                    return
                name = f"{self.prefix}-{worker}-{n}"
                try:
                    made = client.volumes.create(name, spec={"size_gib": 1})
                    self.created[name] = made.meta.id
                    if n % 3 == 0:
                        self.asked_to_delete.add(name)
                        client.volumes.delete(name)
                        self.deleted.add(name)
                except TrivetError:
                    time.sleep(0.05)


def synced(node: LabNode) -> int:
    """The last number that the guest said was on its disk."""
    said = node.trivet("vm", "log", GUEST)
    numbers = [line.partition(":")[2] for line in said.splitlines() if line.startswith("synced:")]
    return int(numbers[-1]) if numbers else 0


async def events_of(node: LabNode) -> list[tuple[int, CloudEvent]]:
    """All events of the stream, in order."""
    found: list[tuple[int, CloudEvent]] = []
    async with connected(node.settings) as bus:
        last = await bus.last_event_seq()
        async with aclosing(bus.events("trivet.evt.>", since_seq=1)) as messages:
            async for message in messages:
                found.append((message.seq, CloudEvent.model_validate_json(message.data)))
                if message.seq >= last:
                    break
    return found


def there(node: LabNode, name: str) -> str | None:
    """The id of a volume of that name, if there is one that is not being deleted."""

    def ask(client: Client) -> str | None:
        try:
            found = client.volumes.get(name)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise
            return None
        return None if found.meta.deleting_at else str(found.meta.id)

    found: str | None = node.patiently(ask, BOUND_S)
    return found


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    ground: CutGround, node: LabNode
) -> None:
    made = 0

    def writes() -> bool:
        nonlocal made
        try:
            with node.client() as client:
                client.security_groups.create(f"full-{made}", spec={})
        except Retry:
            return False
        made += 1
        return True

    assert writes()
    ground.fill()
    until("writes are refused", lambda: not writes(), BOUND_S)
    before = made
    with node.client() as client:
        assert client.security_groups.get("full-0").meta.name == "full-0"
    ground.make_room()
    until("it writes again", writes, BOUND_S)
    assert made == before + 1
    until("all is well", node.healthy, BOUND_S)
    for number in range(made):
        node.patiently(lambda c, n=number: c.security_groups.delete(f"full-{n}"), BOUND_S)


@pytest.mark.parametrize(
    "cut", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, CUTS))]
)
def test_what_was_acknowledged_is_there_after(ground: CutGround, node: LabNode, cut: int) -> None:
    if cut == 0:
        node.create(GUEST)
    until("the guest has booted", lambda: node.ready(GUEST), BOUND_S)
    guest = node.guest(GUEST)
    node.console(guest, WRITER)
    until("it writes", lambda: synced(node) > 2, BOUND_S)
    work = Work(node, f"w{cut}")
    threads = work.begin()
    until("there is work to lose", lambda: len(work.deleted) >= 5, BOUND_S)
    wrote = synced(node)
    created, deleted = dict(work.created), set(work.deleted)
    ground.cut(node.layout)
    work.stop.set()
    for thread in threads:
        thread.join()

    node.trivet("up")
    for name, id_ in created.items():
        if name not in work.asked_to_delete:
            assert there(node, name) == id_, f"{name} was answered with success, and is lost"
    for name in deleted:
        assert there(node, name) is None, f"{name} was deleted, and is back"
    until("the guest has booted again", lambda: node.ready(GUEST), BOUND_S)
    again = node.guest(GUEST)
    assert again.epoch > guest.epoch
    assert int(node.console(again, "cat /data/w")) >= wrote
    check_events(node, created)
    report = json.loads(node.trivet("audit", "verify", "-o", "json"))
    assert report["intact"], report
    for name in created:
        node.patiently(lambda client, name=name: gone(client, name), BOUND_S)
    until("all volumes went", lambda: volumes(node) == 2, BOUND_S)


def check_events(node: LabNode, created: dict[str, str]) -> None:
    """None is lost, none is doubled, the numbers have no gap."""

    def all_told() -> bool:
        told = asyncio.run(events_of(node))
        numbers = [seq for seq, _ in told]
        assert numbers == list(range(1, len(told) + 1))
        twice = [id_ for id_, n in Counter(event.id for _, event in told).items() if n > 1]
        assert twice == []
        births = {e.subject for _, e in told if "volume.created" in e.type}
        return births.issuperset(created.values())

    until("every create is told", all_told, BOUND_S, 1.0)


def gone(client: Client, name: str) -> None:
    try:
        client.volumes.delete(name)
    except Refused as error:
        if error.code is not NOT_FOUND:
            raise


def volumes(node: LabNode) -> int:
    return len(node.patiently(lambda client: client.volumes.list(), BOUND_S).items)
