"""The bus in memory and on a real server, through one suite; and who may do what on the latter."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from trivet.contracts.errors import DENIED, UNAVAILABLE, Fatal, Retry
from trivet.runtime.bus import Message
from trivet.runtime.lateness import Stamp, boot_time
from trivet.runtime.nats_bus import STAMP_HEADER, TIMEOUT_HEADER, NatsBus
from trivet.runtime.nats_link import ApiError, CameLate, Link
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.nkeys import make_key
from trivet.testing.bus_world import BusWorld, MemoryWorld, NatsWorld
from trivet.testing.nats import NatsServer
from trivet.testing.suites.bus import EVENT, SUBJECT, BusSuite, echo


class TestMemoryBus(BusSuite):
    @pytest.fixture
    async def world(self) -> AsyncIterator[BusWorld]:
        made = MemoryWorld()
        yield made
        await made.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    made = NatsServer(tmp_path)
    await made.start()
    yield made
    await made.stop()


class TestNatsBus(BusSuite):
    @pytest.fixture
    async def world(self, server: NatsServer) -> AsyncIterator[BusWorld]:
        made = NatsWorld(server)
        yield made
        await made.close()


@pytest.fixture
async def compute(server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await server.bus("compute")
    yield bus
    await bus.close()


async def denied(work: object) -> None:
    with pytest.raises(Fatal) as error:
        await work  # type: ignore[misc]
    assert error.value.code is DENIED


class TestPermissions:
    async def test_another_bucket_is_out_of_reach(self, compute: NatsBus) -> None:
        theirs = NatsStore(compute.link, "security")
        await denied(theirs.create("user._.mallory", b"{}"))
        await denied(theirs.update("user._.admin", b"{}", 1))
        await denied(theirs.delete("user._.admin", 1))
        await denied(theirs.get("user._.admin"))
        async with aclosing(theirs.watch("")) as steps:
            await denied(anext(steps))
        ours = NatsStore(compute.link, "compute")
        assert await ours.create("vm.lab.a", b"{}") == 1

    async def test_a_consumer_of_another_bucket_is_denied_by_every_road(
        self, compute: NatsBus
    ) -> None:
        config = {"deliver_subject": f"{compute.link.inbox}.x", "ack_policy": "none"}
        body = {"stream_name": "KV_security", "config": config}
        for call in (
            "CONSUMER.CREATE.KV_security",
            "CONSUMER.CREATE.KV_security.x.$KV.security.>",
            "CONSUMER.DURABLE.CREATE.KV_security.x",
            "STREAM.MSG.GET.KV_security",
            "DIRECT.GET.KV_security",
            "STREAM.SNAPSHOT.KV_security",
            "STREAM.PURGE.KV_compute",
            "STREAM.DELETE.KV_compute",
            "STREAM.UPDATE.KV_compute",
            "STREAM.CREATE.mine",
        ):
            await denied(compute.link.api(call, body))

    async def test_what_a_consumer_body_names_does_not_count(self, compute: NatsBus) -> None:
        """The subject names the stream that permissions know; a body can't name another."""
        config = {"deliver_subject": f"{compute.link.inbox}.x", "ack_policy": "none", "name": "x"}
        body = {"stream_name": "KV_security", "config": config, "action": "create"}
        with pytest.raises(ApiError):
            await compute.link.api("CONSUMER.CREATE.KV_compute.x", body)

    async def test_events_of_others_can_not_be_forged(self, compute: NatsBus) -> None:
        await denied(compute.append_event("trivet.evt.storage.volume.gone.v1", b"", message_id="x"))
        assert await compute.append_event(EVENT, b"", message_id="compute/1/0") == 1

    async def test_others_requests_and_replies_can_not_be_heard(self, compute: NatsBus) -> None:
        await denied(compute.serve("trivet.security.token.verify.v1", echo, queue=None, bound=1))
        await denied(compute.serve("trivet.>", echo, queue=None, bound=1))
        await denied(compute.serve("_INBOX.>", echo, queue=None, bound=1))
        await denied(compute.serve("$KV.>", echo, queue=None, bound=1))

    async def test_beats_are_sent_for_oneself_only(
        self, compute: NatsBus, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR):
            await compute.publish("trivet.beat.storage.n1", b"")
            await compute.link.round_trip()
        assert "compute may not publish to trivet.beat.storage.n1" in caplog.text

    async def test_the_gateway_reads_events_and_has_no_bucket(
        self, server: NatsServer, compute: NatsBus
    ) -> None:
        gateway = await server.bus("gateway")
        await compute.append_event(EVENT, b"e", message_id="compute/1/0")
        async with aclosing(gateway.events("trivet.evt.>", since_seq=1)) as events:
            assert (await anext(events)).data == b"e"
        await denied(NatsStore(gateway.link, "compute").create("vm.lab.a", b""))
        await denied(NatsStore(gateway.link, "gateway").create("vm.lab.a", b""))
        await denied(gateway.append_event(EVENT, b"forged", message_id="compute/2/0"))
        await gateway.close()

    async def test_a_stranger_is_not_let_in(self, server: NatsServer, tmp_path: Path) -> None:
        key = tmp_path / "stranger.nk"
        make_key(key)
        with pytest.raises(Retry) as error:
            await Link.connect(
                [server.url], service="compute", name="x", seed_file=key, timeout_s=1.0
            )
        assert error.value.code is UNAVAILABLE


class TestRequestsUnderDenial:
    async def test_a_denied_request_leaves_others_alone(
        self, server: NatsServer, compute: NatsBus
    ) -> None:
        await compute.serve(SUBJECT, echo, queue="q", bound=4)
        storage = await server.bus("storage")
        good = [storage.request(SUBJECT, b"%d" % n, timeout_s=10) for n in range(10)]
        bad = [storage.request("$KV.compute.x", b"", timeout_s=10) for _ in range(3)]
        results = await asyncio.gather(*good, *bad, return_exceptions=True)
        assert results[:10] == [b"%d" % n for n in range(10)]
        assert all(isinstance(r, Fatal) and r.code is DENIED for r in results[10:])
        await storage.close()


class TestLateRequests:
    """What was under way for longer than its caller waits is not done; see `runtime.lateness`."""

    @pytest.fixture
    async def heard(self, compute: NatsBus) -> AsyncIterator[list[bytes]]:
        heard: list[bytes] = []

        async def hear(message: Message) -> bytes:
            heard.append(message.data)
            return b"done"

        subscription = await compute.serve(SUBJECT, hear, queue=None, bound=1)
        yield heard
        await subscription.stop()

    async def test_a_late_request_is_not_done_and_its_sender_is_told(
        self, compute: NatsBus, heard: list[bytes]
    ) -> None:
        now = 1_000.0
        stamp = Stamp(lambda: now)
        headers = {TIMEOUT_HEADER: "5000", STAMP_HEADER: stamp.now()}
        await compute.link.request(SUBJECT, b"first", timeout_s=5, headers=headers)
        now -= 30  # as if it had been sent 30 s ago
        late = {**headers, STAMP_HEADER: stamp.now()}
        with pytest.raises(CameLate):
            await compute.link.request(SUBJECT, b"late", timeout_s=5, headers=late)
        assert heard == [b"first"]

    async def test_who_only_looks_late_is_heard(
        self, compute: NatsBus, heard: list[bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stopped_s = 0.0
        monkeypatch.setattr(compute, "_stamp", Stamp(lambda: boot_time() - stopped_s))
        assert await compute.request(SUBJECT, b"first", timeout_s=5) == b"done"
        stopped_s = 60.0  # its machine was suspended
        assert await compute.request(SUBJECT, b"second", timeout_s=5) == b"done"
        assert heard == [b"first", b"second"]
