"""A scrub of volumes on three nodes finds every flip, says whose it was, has it copied again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.functional.storage.conftest import NAMES, PROJECT, Storage, code_of, until

from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import NOT_SUPPORTED
from trivet.contracts.model import GIB
from trivet.contracts.storage.endpoints.volume_scrub import ENDPOINT as SCRUB
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.volume import Missing, ReplicaState, Volume
from trivet.storage.bootstrap import bootstrap
from trivet.storage.controllers import healing
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.volume_machine import BLOCK, MACHINES, FakeReplica
from trivet.testing.harness import Harness

ALL = ("n1", "n2", "n3")


class Scrubbed(Storage):
    def replica(self, volume: Volume, node: str) -> FakeReplica:
        folder = self.harness.folder / "state" / "storage" / "fake-engine"
        return MACHINES[folder, node].replicas[volume.meta.id]

    async def scrub(self, name: str) -> Volume:
        before = (await self.show(name, 0)).status.scrub.at
        await self.harness.call(SCRUB, Ref(project=PROJECT, name=name))

        async def done() -> bool:
            return (await self.show(name, 0)).status.scrub.at != before

        await until("it is scrubbed", done, 30)
        return await self.show(name, 0)


@pytest.fixture
async def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scrubbed]:
    # What is stale stays so, to be looked at.
    monkeypatch.setattr(healing, "SURVEY_S", 60.0)
    settings = {**NAMES, "scrub_bytes_per_s": 10**12}
    configs = {"fake-engine": {"pool_bytes": 10 * GIB}}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        made = Scrubbed(harness)
        for node in ALL:
            await harness.start("storage", bootstrap, node=node)
        await made.pool("p", members=tuple(PoolMember(node=n, file_gib=10) for n in ALL))
        yield made


def fill(storage: Scrubbed, volume: Volume, seed: int) -> list[int]:
    """Write the same to all replicas; the numbers of the blocks."""
    chosen = random.Random(seed)
    blocks = sorted(chosen.sample(range(GIB // BLOCK), 60))
    content = {n: chosen.randbytes(BLOCK) for n in blocks}
    for replica in volume.status.replicas:
        storage.replica(volume, replica.node).blocks.update(content)
    return blocks


@pytest.mark.parametrize("replicas", [2, 3])
async def test_every_flip_is_found_and_its_side_named(storage: Scrubbed, replicas: int) -> None:
    volume = await storage.make("v", replicas=replicas)
    blocks = fill(storage, volume, seed=replicas)
    clean = await storage.scrub("v")
    told = clean.status.condition("Consistent")
    assert told is not None
    assert told.status == "true"
    chosen = random.Random(7)
    victim = chosen.choice([r.node for r in volume.status.replicas])
    flipped = chosen.sample(blocks, 12)
    data = storage.replica(volume, victim).blocks
    for number in flipped:
        at = chosen.randrange(BLOCK)
        old = data[number]
        data[number] = old[:at] + bytes([old[at] ^ (1 << chosen.randrange(8))]) + old[at + 1 :]
    found = await storage.scrub("v")
    megabytes = {number * BLOCK // 2**20 for number in flipped}
    assert found.status.scrub.found_blocks == len(megabytes)
    told = found.status.condition("Consistent")
    assert told is not None
    assert f"{len(megabytes)} blocks were wrong on {victim}" in told.message
    bad = [r for r in found.status.replicas if r.state is not ReplicaState.IN_SYNC]
    assert [(r.node, r.missing) for r in bad] in ([(victim, Missing.DIFFERENCES)], [])


async def test_where_nobody_knows_it_is_told_and_nothing_is_touched(storage: Scrubbed) -> None:
    volume = await storage.make("v", replicas=2)
    fill(storage, volume, seed=1)
    first = volume.status.replicas[0].node
    data = storage.replica(volume, first).blocks
    number = next(iter(data))
    data[number] = bytes(reversed(data[number]))
    found = await storage.scrub("v")
    told = found.status.condition("Consistent")
    assert told is not None
    assert told.reason == "Undecided"
    assert all(r.state is ReplicaState.IN_SYNC for r in found.status.replicas)


async def test_one_replica_has_nothing_to_be_compared_with(storage: Scrubbed) -> None:
    await storage.make("v")
    request = Ref(project=PROJECT, name="v")
    assert await code_of(storage.harness.call(SCRUB, request)) is NOT_SUPPORTED
