"""The law for stores as tests: bind a `world` fixture (`BusWorld`) and inherit."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from trivet.contracts.errors import CONFLICT, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.runtime.claims import Claims
from trivet.runtime.store import Change, Store, Synced
from trivet.testing.bus_world import BusWorld
from trivet.testing.suites.bus import task, until

Steps = list[Change | Synced]


async def follow(store: Store, prefix: str, into: Steps) -> None:
    """Watch for ever."""
    async with aclosing(store.watch(prefix)) as steps:
        async for step in steps:
            into.append(step)


def told(steps: Steps) -> dict[str, bytes]:
    """What somebody knows who has heard these steps."""
    known: dict[str, bytes] = {}
    for step in steps:
        if isinstance(step, Change):
            if step.value is None:
                known.pop(step.key, None)
            else:
                known[step.key] = step.value
    return known


def syncs(steps: Steps) -> int:
    """How often the whole was told."""
    return sum(isinstance(step, Synced) for step in steps)


async def conflict(work: object) -> None:
    """`work` must end in a conflict."""
    with pytest.raises(Refused) as error:
        await work  # type: ignore[misc]
    assert error.value.code is CONFLICT


class KeySuite:
    """Keys, revisions, compare-and-swap."""

    async def test_a_key_lives_dies_and_lives_again(self, world: BusWorld) -> None:
        store = await world.store("compute")
        assert await store.get("vm.lab.a") is None
        first = await store.create("vm.lab.a", b"1")
        await conflict(store.create("vm.lab.a", b"2"))
        second = await store.update("vm.lab.a", b"2", first)
        assert second > first
        await conflict(store.update("vm.lab.a", b"3", first))
        entry = await store.get("vm.lab.a")
        assert entry is not None
        assert (entry.key, entry.value, entry.revision) == ("vm.lab.a", b"2", second)
        await conflict(store.delete("vm.lab.a", first))
        await store.delete("vm.lab.a", second)
        assert await store.get("vm.lab.a") is None
        await store.delete("vm.lab.a", second)
        await conflict(store.update("vm.lab.a", b"4", second))
        third = await store.create("vm.lab.a", b"5")
        assert third > second
        await conflict(store.create("vm.lab.a", b"6"))

    async def test_a_key_that_was_never_there(self, world: BusWorld) -> None:
        store = await world.store("compute")
        await conflict(store.update("vm.lab.a", b"1", 7))
        await store.delete("vm.lab.a", 7)
        with pytest.raises(ValueError, match="not a key"):
            await store.get("vm.*")
        with pytest.raises(ValueError, match="not a key"):
            await store.create("vm..a", b"")

    async def test_revisions_grow_over_the_bucket(self, world: BusWorld) -> None:
        one, other = await world.store("compute"), await world.store("compute")
        revisions = [
            await store.create(f"k.{n}", b"")
            for n in range(5)
            for store in (one, other)
            if (n + (store is one)) % 2
        ]
        assert revisions == sorted(set(revisions))

    async def test_of_many_who_write_at_once_none_is_lost(self, world: BusWorld) -> None:
        store = await world.store("compute")
        await store.create("counter", b"0")

        async def add() -> None:
            while True:
                entry = await store.get("counter")
                assert entry is not None
                try:
                    await store.update("counter", b"%d" % (int(entry.value) + 1), entry.revision)
                except Refused as error:
                    if error.code is not CONFLICT:
                        raise
                else:
                    return

        await asyncio.gather(*(add() for _ in range(12)))
        entry = await store.get("counter")
        assert entry is not None
        assert entry.value == b"12"

    async def test_a_value_is_bytes_of_any_kind(self, world: BusWorld) -> None:
        store = await world.store("compute")
        for n, value in enumerate((b"", bytes(range(256)), b"x" * 500_000)):
            await store.create(f"k.{n}", value)
            entry = await store.get(f"k.{n}")
            assert entry is not None
            assert entry.value == value


class WatchSuite:
    """Watches."""

    async def test_what_is_there_then_what_changes(self, world: BusWorld) -> None:
        store = await world.store("compute")
        one = await store.create("vm.lab.a", b"1")
        gone = await store.create("vm.lab.gone", b"1")
        await store.delete("vm.lab.gone", gone)
        await store.create("image.lab.a", b"i")
        some: Steps = []
        every: Steps = []
        async with task(follow(store, "vm.", some)), task(follow(store, "", every)):
            await until(lambda: syncs(some) == 1 and syncs(every) == 1)
            assert some == [Change("vm.lab.a", b"1", one), Synced()]
            two = await store.update("vm.lab.a", b"2", one)
            await until(lambda: len(some) == 3)
            await store.delete("vm.lab.a", two)
            await until(lambda: told(some) == {})
            await store.create("vm.lab.b", b"1")
            await until(lambda: told(some) == {"vm.lab.b": b"1"})
            await until(lambda: told(every) == {"vm.lab.b": b"1", "image.lab.a": b"i"})
        assert some[2] == Change("vm.lab.a", b"2", two)
        revisions = [step.revision for step in every if isinstance(step, Change)]
        assert revisions == sorted(revisions)

    async def test_an_empty_bucket_is_told_as_such(self, world: BusWorld) -> None:
        steps: Steps = []
        store = await world.store("compute")
        async with task(follow(store, "vm.", steps)):
            await until(lambda: steps == [Synced()])
            await store.create("vm.lab.a", b"1")
            await until(lambda: told(steps) == {"vm.lab.a": b"1"})

    async def test_a_watch_told_of_all_that_was_written_under_load(self, world: BusWorld) -> None:
        store, writer = await world.store("compute"), await world.store("compute")
        steps: Steps = []
        await asyncio.gather(*(writer.create(f"k.{n}", b"0") for n in range(100)))
        async with task(follow(store, "", steps)):
            await asyncio.gather(*(writer.create(f"l.{n}", b"0") for n in range(100)))
            await until(lambda: len(told(steps)) == 200 and syncs(steps) == 1)

    async def test_a_watch_over_an_outage_loses_nothing(self, world: BusWorld) -> None:
        store, writer = await world.store("compute"), await world.store("compute")
        steps: Steps = []
        kept = await writer.create("k.kept", b"1")
        await writer.create("k.vanished", b"1")
        changed = await writer.create("k.changed", b"1")
        async with task(follow(store, "", steps)):
            await until(lambda: syncs(steps) == 1)
            await world.vanish("compute", "k.vanished")
            await world.cut()
            await world.mend()
            await writer.update("k.changed", b"2", changed)
            await writer.create("k.new", b"1")
            wanted = {"k.kept": b"1", "k.changed": b"2", "k.new": b"1"}
            await until(lambda: told(steps) == wanted and syncs(steps) == 2)
            vanished = next(s for s in steps if isinstance(s, Change) and s.value is None)
            assert vanished.key == "k.vanished"
            assert steps.index(vanished) < len(steps) - steps[::-1].index(Synced()) - 1
            await world.cut()
            await world.mend()
            await writer.delete("k.kept", kept)
            await until(lambda: "k.kept" not in told(steps) and syncs(steps) == 3)

    async def test_a_watch_may_begin_during_an_outage(self, world: BusWorld) -> None:
        store = await world.store("compute")
        await store.create("k.a", b"1")
        await world.cut()
        steps: Steps = []
        async with task(follow(store, "", steps)):
            await asyncio.sleep(0)
            await world.mend()
            await until(lambda: told(steps) == {"k.a": b"1"} and syncs(steps) == 1)


class StoreOutageSuite:
    """Writes and reads without a server."""

    async def test_what_was_acknowledged_is_there_after_it(self, world: BusWorld) -> None:
        store = await world.store("compute")
        revision = await store.create("k.a", b"1")
        await world.cut()
        async with asyncio.timeout(20):
            for work in (store.get("k.a"), store.update("k.a", b"2", revision)):
                with pytest.raises(Retry) as error:
                    await work
                assert error.value.code is UNAVAILABLE
        await world.mend()
        entry = await store.get("k.a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"1", revision)
        assert await store.update("k.a", b"2", revision) > revision


class ClaimSuite:
    """Claims, on this store."""

    async def test_one_of_many_gets_it_and_alone_lets_go(self, world: BusWorld) -> None:
        store = await world.store("network")
        claims = Claims(store)
        owners = [ResourceId(f"port-{n:016x}") for n in range(8)]
        key = "claim.ip.net-1.10-0-0-1"
        got = await asyncio.gather(*(claims.claim(key, owner) for owner in owners))
        assert sum(got) == 1
        winner = owners[got.index(True)]
        loser = owners[got.index(False)]
        assert await claims.claim(key, winner)
        await claims.release(key, loser)
        assert await claims.owner(key) == winner
        await claims.claim("claim.ip.net-1.10-0-0-2", loser)
        await claims.claim("claim.ip.net-2.10-0-0-1", loser)
        found = await claims.owners("claim.ip.net-1.")
        assert found == {key: winner, "claim.ip.net-1.10-0-0-2": loser}
        await claims.release(key, winner)
        await claims.release(key, winner)
        assert await claims.owner(key) is None
        assert await claims.claim(key, loser)


class StoreSuite(KeySuite, WatchSuite, StoreOutageSuite, ClaimSuite):
    """All of it."""
