"""Reconcile loops: one worker an object, nothing lost, failures apart from each other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from trivet.contracts.errors import CONFLICT, DRIVER_FAILED, TIMEOUT, Fatal, Refused, Retry
from trivet.runtime.clock import SystemClock
from trivet.runtime.reconcile import Reconciler


@asynccontextmanager
async def running(
    reconcile: Callable[[str], Awaitable[float | None]],
    keys: tuple[str, ...] = (),
    bound: int = 4,
    apart_s: float = 0.0,
) -> AsyncIterator[Reconciler]:
    loop = Reconciler(
        "test", reconcile, clock=SystemClock(), keys=lambda: keys, bound=bound, apart_s=apart_s
    )
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0)  # it runs from here on
    try:
        yield loop
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_wake_up_during_work_means_one_more_look() -> None:
    looks = 0
    at_work, go_on, seen_twice = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal looks
        looks += 1
        at_work.set()
        await go_on.wait()
        if looks == 2:
            seen_twice.set()

    async with running(reconcile) as loop:
        loop.wake("a")
        await at_work.wait()
        for _ in range(5):
            loop.wake("a")
        go_on.set()
        await asyncio.wait_for(seen_twice.wait(), 5)
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(done.set)
        await done.wait()
    assert looks == 2


async def test_what_wakes_a_key_while_it_rests_is_one_look_when_it_has() -> None:
    looks: dict[str, int] = {"a": 0, "b": 0}
    looked = asyncio.Event()

    async def reconcile(key: str) -> None:
        looks[key] += 1
        looked.set()

    async def next_look() -> None:
        looked.clear()
        await asyncio.wait_for(looked.wait(), 5)

    rest_s = 0.05
    async with running(reconcile, apart_s=rest_s) as loop:
        loop.wake("a")
        await next_look()
        ended = asyncio.get_running_loop().time()
        for _ in range(5):
            loop.wake("a")
        loop.wake("b")
        await next_look()
        assert looks == {"a": 1, "b": 1}, "one that rests keeps no other one from its look"
        while looks["a"] == 1:
            await next_look()
        assert asyncio.get_running_loop().time() - ended >= rest_s * 0.9
        await asyncio.sleep(3 * rest_s)
        assert looks == {"a": 2, "b": 1}
        loop.wake("a")
        await next_look()
    assert looks == {"a": 3, "b": 1}


async def test_an_object_has_one_worker_and_the_bound_holds() -> None:
    now: list[str] = []
    most = 0
    done: set[str] = set()
    all_done = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal most
        assert key not in now
        now.append(key)
        most = max(most, len(now))
        await asyncio.sleep(0)
        now.remove(key)
        done.add(key)
        if len(done) == 20:
            all_done.set()

    async with running(reconcile, bound=3) as loop:
        for key in [str(n) for n in range(20)] * 2:
            loop.wake(key)
        await asyncio.wait_for(all_done.wait(), 5)
    assert most == 3


async def test_failures_are_tried_again_and_do_not_stop_others() -> None:
    tries: dict[str, int] = {}
    healed, other = asyncio.Event(), asyncio.Event()

    async def reconcile(key: str) -> None:
        tries[key] = tries.get(key, 0) + 1
        if key == "bad":
            if tries[key] == 1:
                raise Retry(TIMEOUT, "later", retry_after_s=0.01)
            if tries[key] == 2:
                raise ZeroDivisionError
            healed.set()
        else:
            other.set()

    async with running(reconcile, bound=1) as loop:
        loop.wake("bad")
        loop.wake("good")
        await asyncio.wait_for(other.wait(), 5)
        await asyncio.wait_for(healed.wait(), 5)


async def test_a_conflict_is_tried_at_once_and_one_without_end_keeps_nobody_busy() -> None:
    looks = 0
    twice = asyncio.Event()

    async def reconcile(key: str) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            twice.set()
        raise Refused(CONFLICT, "somebody was first")

    async with running(reconcile) as loop:
        loop.wake("a")
        await asyncio.wait_for(twice.wait(), 5)
        for _ in range(100):
            await asyncio.sleep(0)
        assert looks == 2
        assert "a" in loop._timers


async def test_all_keys_are_looked_at_without_a_wake_up() -> None:
    seen: set[str] = set()
    complete = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.add(key)
        if seen == {"a", "b"}:
            complete.set()

    async with running(reconcile, keys=("a", "b")):
        await asyncio.wait_for(complete.wait(), 5)


async def test_a_delay_leads_to_another_look() -> None:
    looks = 0
    second = asyncio.Event()

    async def reconcile(key: str) -> float | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            second.set()
            return None
        return 0.01

    async with running(reconcile) as loop:
        loop.wake("a")
        await asyncio.wait_for(second.wait(), 5)


async def test_what_is_calm_is_not_looked_at_by_the_look_at_all() -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        done.set()

    async def survey() -> None:
        surveyed.append("all")

    surveyed: list[str] = []
    loop = Reconciler(
        "test",
        reconcile,
        clock=SystemClock(),
        keys=lambda: [f"k{n}" for n in range(100)],
        survey=survey,
        calm=lambda key: bool(surveyed) and key != "k77",
    )
    task = asyncio.create_task(loop.run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == ["k77"]


async def test_a_survey_that_fails_has_keys_looked_at_one_by_one() -> None:
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        done.set()

    async def survey() -> None:
        raise OSError("no driver")

    clock = SystemClock()
    loop = Reconciler("test", reconcile, clock=clock, keys=lambda: ["k"], survey=survey)
    task = asyncio.create_task(loop.run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_a_driver_tells_is_logged_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = asyncio.Event()

    async def reconcile(key: str) -> None:
        if key == "end":
            told.set()
        raise {"driver": Fatal(DRIVER_FAILED, "the disk is gone")}.get(key, ValueError(key))

    async with running(reconcile, bound=1) as loop:
        for key in ("driver", "bug", "end"):
            loop.wake(key)
        await asyncio.wait_for(told.wait(), 5)
    traced = {record.args[1]: bool(record.exc_info) for record in caplog.records if record.args}
    assert traced["driver"] is False
    assert traced["bug"] is True
