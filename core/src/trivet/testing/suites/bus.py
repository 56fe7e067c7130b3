"""The law for buses as tests: bind a `world` fixture (`BusWorld`) and inherit.

`compute` serves and tells events, `gateway` asks and reads them, as far as the real server's
permissions let them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from trivet.contracts.errors import MALFORMED, TIMEOUT, UNAVAILABLE, Refused, Retry
from trivet.runtime.bus import MAX_PAYLOAD_BYTES, Bus, Message, StreamMessage
from trivet.testing.bus_world import BusWorld

SUBJECT = "trivet.compute.thing.do.v1"
EVENT = "trivet.evt.compute.thing.done.v1"
OTHER_EVENT = "trivet.evt.compute.other.done.v1"
LONG_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, or fail."""
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - conditions are of all kinds
            await asyncio.sleep(0.01)


async def echo(message: Message) -> bytes:
    """Answer with what was asked."""
    return message.data


@asynccontextmanager
async def task(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    """`work` beside the block; its failure is the test's."""
    running = asyncio.ensure_future(work)
    try:
        yield running
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def read(bus: Bus, subject: str, since: int | None, into: list[StreamMessage]) -> None:
    """Read events for ever."""
    async with aclosing(bus.events(subject, since_seq=since)) as events:
        async for event in events:
            into.append(event)


class RequestSuite:
    """Requests and core messages."""

    async def test_a_request_gets_the_reply_with_headers_and_deadline(
        self, world: BusWorld
    ) -> None:
        seen: list[Message] = []

        async def handle(message: Message) -> bytes:
            seen.append(message)
            return message.data.upper()

        await (await world.bus("compute")).serve(
            "trivet.compute.*.*.v1", handle, queue="q", bound=2
        )
        asker = await world.bus("gateway")
        answer = await asker.request(SUBJECT, b"hi", timeout_s=LONG_S, headers={"K": "v"})
        assert answer == b"HI"
        assert seen[0].subject == SUBJECT
        assert seen[0].headers["K"] == "v"
        assert seen[0].remaining_s is not None
        assert 0 < seen[0].remaining_s <= LONG_S

    async def test_where_nobody_listens_the_answer_is_at_once(self, world: BusWorld) -> None:
        asker = await world.bus("gateway")
        async with asyncio.timeout(LONG_S):
            with pytest.raises(Retry) as error:
                await asker.request(SUBJECT, b"", timeout_s=3600)
        assert error.value.code is UNAVAILABLE

    async def test_an_answer_that_is_late_is_a_timeout(self, world: BusWorld) -> None:
        gate = asyncio.Event()

        async def wait(message: Message) -> bytes:
            await gate.wait()
            return b""

        await (await world.bus("compute")).serve(SUBJECT, wait, queue="q", bound=1)
        with pytest.raises(Retry) as error:
            await (await world.bus("gateway")).request(SUBJECT, b"", timeout_s=0.1)
        assert error.value.code is TIMEOUT
        gate.set()

    async def test_handlers_run_together_up_to_the_bound(self, world: BusWorld) -> None:
        at_work, most = 0, 0
        gate = asyncio.Event()

        async def handle(message: Message) -> bytes:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            await gate.wait()
            at_work -= 1
            return message.data

        await (await world.bus("compute")).serve(SUBJECT, handle, queue="q", bound=3)
        asker = await world.bus("gateway")
        asked = [
            asyncio.create_task(asker.request(SUBJECT, b"%d" % n, timeout_s=LONG_S))
            for n in range(9)
        ]
        await until(lambda: at_work == 3)
        gate.set()
        assert await asyncio.gather(*asked) == [b"%d" % n for n in range(9)]
        assert most == 3

    async def test_what_waited_beyond_its_deadline_is_not_handled(self, world: BusWorld) -> None:
        gate = asyncio.Event()
        handled: list[bytes] = []

        async def handle(message: Message) -> bytes:
            handled.append(message.data)
            await gate.wait()
            return message.data

        await (await world.bus("compute")).serve(SUBJECT, handle, queue="q", bound=1)
        asker = await world.bus("gateway")
        first = asyncio.create_task(asker.request(SUBJECT, b"first", timeout_s=LONG_S))
        await until(lambda: handled == [b"first"])
        with pytest.raises(Retry):
            await asker.request(SUBJECT, b"late", timeout_s=0.1)
        third = asyncio.create_task(asker.request(SUBJECT, b"third", timeout_s=LONG_S))
        gate.set()
        assert list(await asyncio.gather(first, third)) == [b"first", b"third"]
        assert handled == [b"first", b"third"]

    async def test_a_handler_that_raises_answers_nothing_and_others_go_on(
        self, world: BusWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def handle(message: Message) -> bytes:
            if message.data == b"bad":
                raise ZeroDivisionError
            return b"good"

        await (await world.bus("compute")).serve(SUBJECT, handle, queue="q", bound=1)
        asker = await world.bus("gateway")
        with pytest.raises(Retry) as error:
            await asker.request(SUBJECT, b"bad", timeout_s=0.2)
        assert error.value.code is TIMEOUT
        assert await asker.request(SUBJECT, b"", timeout_s=LONG_S) == b"good"
        assert "failed and answers nothing" in caplog.text

    async def test_a_queue_shares_and_each_request_is_handled_once(self, world: BusWorld) -> None:
        handled: dict[int, list[bytes]] = {0: [], 1: []}
        for number in handled:

            async def handle(message: Message, number: int = number) -> bytes:
                handled[number].append(message.data)
                return b""

            await (await world.bus("compute")).serve(SUBJECT, handle, queue="q", bound=9)
        asker = await world.bus("gateway")
        asked = (asker.request(SUBJECT, b"%d" % n, timeout_s=LONG_S) for n in range(60))
        await asyncio.gather(*asked)
        assert sorted(handled[0] + handled[1]) == sorted(b"%d" % n for n in range(60))
        assert handled[0]
        assert handled[1]

    async def test_stop_lets_handlers_finish_and_takes_no_more(self, world: BusWorld) -> None:
        gate, began = asyncio.Event(), asyncio.Event()

        async def handle(message: Message) -> bytes:
            began.set()
            await gate.wait()
            return b"done"

        serving = await (await world.bus("compute")).serve(SUBJECT, handle, queue="q", bound=1)
        asker = await world.bus("gateway")
        asked = asyncio.create_task(asker.request(SUBJECT, b"", timeout_s=LONG_S))
        await began.wait()
        stopping = asyncio.create_task(serving.stop())
        gate.set()
        await stopping
        assert await asked == b"done"
        with pytest.raises(Retry) as error:
            await asker.request(SUBJECT, b"", timeout_s=LONG_S)
        assert error.value.code is UNAVAILABLE
        await serving.stop()

    async def test_core_messages_are_heard_in_order_by_all(self, world: BusWorld) -> None:
        heard: list[list[bytes]] = [[], []]
        for listener in heard:

            async def hear(message: Message, listener: list[bytes] = listener) -> None:
                await asyncio.sleep(0)
                listener.append(message.data)

            await (await world.bus("storage")).subscribe("trivet.beat.compute.*", hear)
        teller = await world.bus("compute")
        for n in range(20):
            await teller.publish("trivet.beat.compute.n1", b"%d" % n)
        await until(lambda: len(heard[0]) == len(heard[1]) == 20)
        assert heard[0] == heard[1] == [b"%d" % n for n in range(20)]

    async def test_too_large_a_message_is_refused(self, world: BusWorld) -> None:
        asker = await world.bus("gateway")
        with pytest.raises(Refused) as error:
            await asker.request(SUBJECT, b"x" * (MAX_PAYLOAD_BYTES + 1), timeout_s=1)
        assert error.value.code is MALFORMED


class EventSuite:
    """The event stream."""

    async def test_an_event_is_appended_once_for_each_id(self, world: BusWorld) -> None:
        teller = await world.bus("compute")
        assert await teller.last_event_seq() == 0
        assert await teller.append_event(EVENT, b"1", message_id="compute/1/0") == 1
        assert await teller.append_event(EVENT, b"2", message_id="compute/1/1") == 2
        assert await teller.append_event(EVENT, b"1", message_id="compute/1/0") == 1
        assert await teller.last_event_seq() == 2

    async def test_events_come_in_order_from_where_one_asks(self, world: BusWorld) -> None:
        teller, reader = await world.bus("compute"), await world.bus("gateway")
        for n in range(4):
            await teller.append_event(EVENT, b"%d" % n, message_id=f"compute/{n}/0")
        await teller.append_event(OTHER_EVENT, b"other", message_id="compute/9/0")
        some: list[StreamMessage] = []
        every: list[StreamMessage] = []
        new: list[StreamMessage] = []
        since = await reader.last_event_seq() + 1
        async with (
            task(read(reader, EVENT, 3, some)),
            task(read(reader, "trivet.evt.>", 1, every)),
            task(read(reader, "trivet.evt.compute.>", since, new)),
        ):
            await until(lambda: len(some) == 2 and len(every) == 5)
            await teller.append_event(EVENT, b"late", message_id="compute/10/0")
            await until(lambda: len(some) == 3 and len(every) == 6 and len(new) == 1)
        assert [(e.seq, e.data) for e in some] == [(3, b"2"), (4, b"3"), (6, b"late")]
        assert [e.seq for e in every] == [1, 2, 3, 4, 5, 6]
        assert new[0].data == b"late"
        assert new[0].subject == EVENT

    async def test_an_event_is_found_by_its_id(self, world: BusWorld) -> None:
        teller = await world.bus("compute")
        since = datetime.now(UTC) - timedelta(hours=1)
        assert await teller.find_event(EVENT, "compute/1/0", since=since) is None
        await teller.append_event(OTHER_EVENT, b"", message_id="compute/1/1")
        for n in range(30):
            await teller.append_event(EVENT, b"", message_id=f"compute/{n}/0")
        assert await teller.find_event(EVENT, "compute/7/0", since=since) == 9
        assert await teller.find_event(EVENT, "compute/1/1", since=since) is None
        assert await teller.find_event(EVENT, "compute/30/0", since=since) is None
        later = datetime.now(UTC) + timedelta(hours=1)
        assert await teller.find_event(EVENT, "compute/7/0", since=later) is None


class OutageSuite:
    """The server goes away and comes back."""

    async def test_without_a_server_all_says_so_at_once(self, world: BusWorld) -> None:
        bus = await world.bus("compute")
        assert bus.connected
        await world.cut()
        assert not bus.connected
        async with asyncio.timeout(LONG_S):
            with pytest.raises(Retry) as error:
                await bus.request(SUBJECT, b"", timeout_s=3600)
            assert error.value.code is UNAVAILABLE
            with pytest.raises(Retry) as error:
                await bus.append_event(EVENT, b"", message_id="compute/1/0")
            assert error.value.code is UNAVAILABLE
        await world.mend()

    async def test_a_request_on_its_way_may_have_happened(self, world: BusWorld) -> None:
        began, gate = asyncio.Event(), asyncio.Event()

        async def handle(message: Message) -> bytes:
            began.set()
            await gate.wait()
            return b""

        serving = await world.bus("compute")
        await serving.serve(SUBJECT, handle, queue="q", bound=1)
        asker = await world.bus("gateway")
        asked = asyncio.create_task(asker.request(SUBJECT, b"", timeout_s=3600))
        await began.wait()
        await world.cut()
        with pytest.raises(Retry) as error:
            async with asyncio.timeout(LONG_S):
                await asked
        assert error.value.code is TIMEOUT
        gate.set()
        await world.mend()

    async def test_everything_goes_on_after_it(self, world: BusWorld) -> None:
        serving, asker = await world.bus("compute"), await world.bus("gateway")
        heard: list[bytes] = []
        again: list[int] = []

        async def hear(message: Message) -> None:
            heard.append(message.data)

        async def note() -> None:
            again.append(1)

        await serving.serve(SUBJECT, echo, queue="q", bound=1)
        await asker.subscribe("trivet.beat.>", hear)
        serving.on_reconnect(note)
        events: list[StreamMessage] = []
        async with task(read(asker, EVENT, 1, events)):
            await serving.append_event(EVENT, b"0", message_id="compute/0/0")
            await until(lambda: len(events) == 1)
            for n in (1, 2):
                await world.cut()
                await world.mend()
                await serving.append_event(EVENT, b"%d" % (n - 1), message_id=f"compute/{n - 1}/0")
                await serving.append_event(EVENT, b"%d" % n, message_id=f"compute/{n}/0")
                assert await asker.request(SUBJECT, b"on", timeout_s=LONG_S) == b"on"
                await serving.publish("trivet.beat.compute.n1", b"beat")
                await until(lambda n=n: len(events) == n + 1 and len(heard) == n)  # type: ignore[misc]
        assert [e.data for e in events] == [b"0", b"1", b"2"]
        await until(lambda: len(again) == 2)


class BusSuite(RequestSuite, EventSuite, OutageSuite):
    """All of it."""
