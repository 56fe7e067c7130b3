"""The lease: who may take it, and that two never work at once though the store fails."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Refused, Retry
from trivet.runtime.clock import SystemClock
from trivet.runtime.lease import (
    LOOK_S,
    Lease,
    LeaseRecord,
    Seen,
    Take,
    Wait,
    decide,
    observe,
    work_until,
)
from trivet.testing.memory_bus import MemoryBroker, MemoryBus
from trivet.testing.memory_store import Fault, MemoryStore
from trivet.testing.suites.bus import until

ME, OTHER = "n1/a", "n2/b"
TTL_S = 8.0


def seen(holder: str, since: float = 100.0) -> Seen:
    return Seen(LeaseRecord(holder=holder, turn=4), 17, since)


@pytest.mark.parametrize(
    ("known", "now", "wanted"),
    [
        (None, 100.0, Take(0, 1)),
        (seen(""), 100.0, Take(17, 5)),
        (seen(ME), 100.0, Take(17, 5)),
        (seen(OTHER), 100.0, Wait(LOOK_S)),
        (seen(OTHER), 107.5, Wait(0.5)),
        (seen(OTHER), 108.0, Take(17, 5)),
    ],
)
def test_one_without_the_lease(known: Seen | None, now: float, wanted: Take | Wait) -> None:
    assert decide(known, ME, now, TTL_S) == wanted


def test_a_dead_predecessor_is_told_from_another_node_and_from_one_who_may_live() -> None:
    assert decide(seen("n1/b"), ME, 100.0, TTL_S, predecessors="n1/") == Take(17, 5)
    assert decide(seen("n1/b"), ME, 100.0, TTL_S) == Wait(LOOK_S)
    assert decide(seen("n10/b"), ME, 100.0, TTL_S, predecessors="n1/") == Wait(LOOK_S)


def test_a_record_that_changed_is_watched_anew() -> None:
    record = LeaseRecord(holder=OTHER, turn=1)
    first = observe(None, record, 5, 10.0)
    assert observe(first, record, 5, 17.0).since == 10.0
    assert observe(first, record, 6, 17.0).since == 17.0


@given(
    sent_at=st.floats(0, 1000),
    travelled=st.floats(0, 5),
    looked_after=st.floats(0, 5),
    rates=st.tuples(st.floats(0.9, 1.1), st.floats(0.9, 1.1)),
)
def test_the_holder_has_stopped_before_another_may_begin(
    sent_at: float, travelled: float, looked_after: float, rates: tuple[float, float]
) -> None:
    """In true time, whatever the delays, with clocks that run up to a tenth too fast or slow."""
    stops = sent_at + (work_until(sent_at, TTL_S) - sent_at) / rates[0]
    first_seen = sent_at + travelled + looked_after
    takes = first_seen + TTL_S / rates[1]
    assert stops < takes


class Team:
    """Instances that contend; notes how many work at once."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most = 0
        self.terms = 0

    async def work(self) -> None:
        self.at_work += 1
        self.terms += 1
        self.most = max(self.most, self.at_work)
        try:
            await asyncio.sleep(3600)
        finally:
            self.at_work -= 1


async def contend(lease: Lease, team: Team) -> None:
    while True:
        await lease.hold(team.work)


async def test_a_holder_that_is_cut_off_stops_and_another_takes_over() -> None:
    broker, team = MemoryBroker(), Team()
    buses = [MemoryBus(broker, f"n{n}") for n in (1, 2)]
    leases = [
        Lease(MemoryStore(bus, "compute"), "lead", bus.service, SystemClock(), ttl_s=0.4)
        for bus in buses
    ]
    tasks = [asyncio.create_task(contend(lease, team)) for lease in leases]
    await until(lambda: any(lease.held for lease in leases))
    holder = next(n for n in (0, 1) if leases[n].held)
    await buses[holder].drop()
    await until(lambda: leases[1 - holder].held)
    assert not leases[holder].held
    assert team.most == 1
    await buses[holder].restore()
    tasks[1 - holder].cancel()
    await until(lambda: leases[holder].held)
    assert team.most == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert team.at_work == 0


async def test_one_who_ends_in_good_order_lets_the_next_in_at_once() -> None:
    store, team = MemoryStore(), Team()
    one = Lease(store, "lead", "n1", SystemClock(), ttl_s=3600)
    other = Lease(store, "lead", "n2", SystemClock(), ttl_s=3600)
    first = asyncio.create_task(contend(one, team))
    await until(lambda: one.held)
    second = asyncio.create_task(contend(other, team))
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: other.held)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_restarted_process_that_is_alone_on_its_node_does_not_wait_for_the_ttl() -> None:
    store, team = MemoryStore(), Team()
    await store.create(
        "lease.lead", LeaseRecord(holder="n1/dead", turn=7).model_dump_json().encode()
    )
    lease = Lease(store, "lead", "n1", SystemClock(), ttl_s=3600, alone=True)
    task = asyncio.create_task(contend(lease, team))
    await until(lambda: lease.held)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_error_of_the_work_comes_out_and_the_lease_is_free() -> None:
    store = MemoryStore()
    lease = Lease(store, "lead", "n1", SystemClock())

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await lease.hold(fail)
    entry = await store.get("lease.lead")
    assert entry is not None
    assert LeaseRecord.model_validate_json(entry.value).holder == ""


async def test_a_renewal_in_doubt_is_looked_up() -> None:
    store, team = MemoryStore(), Team()
    lease = Lease(store, "lead", "n1", SystemClock(), ttl_s=0.8)
    task = asyncio.create_task(contend(lease, team))
    await until(lambda: lease.held)
    for fault in (Fault.LOST_AFTER, Fault.LOST_BEFORE, Fault.REFUSED_CONNECTION):
        before = store.writes
        store.fail(fault)
        await until(lambda before=before: store.writes >= before + 2)  # type: ignore[misc]
    assert lease.held
    assert team.terms == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(3))
async def test_at_most_one_works_though_the_store_fails_at_random(seed: int) -> None:
    chance, broker, team = random.Random(seed), MemoryBroker(), Team()
    stores = [MemoryStore(MemoryBus(broker, f"n{n}"), "compute") for n in range(3)]
    leases = [Lease(s, "lead", f"n{n}", SystemClock(), ttl_s=0.2) for n, s in enumerate(stores)]
    tasks = [asyncio.create_task(contend(lease, team)) for lease in leases]
    for _ in range(25):
        store = chance.choice(stores)
        store.fail(chance.choice(list(Fault)), times=chance.randint(1, 4))
        await asyncio.sleep(0.02)
        assert team.most <= 1
    await until(lambda: any(lease.held for lease in leases))
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not any(isinstance(r, (Refused, Retry)) for r in results)
    assert team.most == 1
