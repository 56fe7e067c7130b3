"""Attached volumes, among fakes: broken and mended, grown, bounded, far from their data."""

from __future__ import annotations

from typing import Any

import pytest
from tests.functional.storage.conftest import PROJECT, Storage, until

from trivet.contracts.model import GIB, NodeName
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.volume import Qos
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes.volume_machine import MACHINES, serving


def graph(storage: Storage, id_: Any) -> Any:
    """What is attached, as the machine has it."""
    spec, alive = storage.machine.graphs[id_]
    return spec if alive else None


@pytest.mark.parametrize("what", ["graph", "server"])
async def test_what_broke_is_mended_in_its_epoch(storage: Storage, what: str) -> None:
    """By the node's agent itself, and by the next one who asks to attach."""
    volume = await storage.make("data")
    held = await storage.attach("data")
    machine = storage.machine
    if what == "graph":
        machine.graphs[volume.meta.id] = (machine.graphs[volume.meta.id][0], False)
    else:
        machine.servers.clear()
    await until("the agent has mended it", lambda: graph(storage, volume.meta.id) is not None)
    await until("its server is there", lambda: len(machine.servers) == 1)
    assert await storage.attach("data") == held


async def test_an_attached_volume_grows(storage: Storage) -> None:
    volume = await storage.make("data")
    held = await storage.attach("data")
    assert held.size_bytes == GIB
    await storage.edit("data", size_gib=2)
    await until("it is attached larger", lambda: graph(storage, volume.meta.id).size_bytes > GIB)

    async def told() -> bool:
        attachment = (await storage.show("data")).status.attachment
        return attachment == held.model_copy(update={"size_bytes": 2 * GIB})

    await until("its size is told, all else is as it was", told)


@pytest.mark.parametrize("attached", [False, True])
async def test_an_edit_that_changes_no_replica_is_settled(storage: Storage, attached: bool) -> None:
    await storage.make("data")
    if attached:
        await storage.attach("data")
    await storage.edit("data", qos={"iops": 200})

    async def answered() -> bool:
        volume = await storage.show("data")
        return volume.status.observed_generation == volume.meta.generation

    await until("it is answered", answered)


async def test_bounds_change_live(storage: Storage) -> None:
    volume = await storage.make("data", qos={"iops": 100})
    await storage.attach("data")
    assert graph(storage, volume.meta.id).qos == Qos(iops=100)
    await storage.edit("data", qos={"iops": 200, "bytes_per_s": 1048576})
    wanted = Qos(iops=200, bytes_per_s=1048576)
    await until("it is bounded", lambda: graph(storage, volume.meta.id).qos == wanted)
    await storage.edit("data", qos={"iops": None, "bytes_per_s": None})
    await until("it is free", lambda: graph(storage, volume.meta.id).qos == Qos())
    assert [what for what, _ in storage.machine.calls].count("attach") == 1


async def test_a_volume_is_attached_where_none_of_its_data_is(storage: Storage) -> None:
    """Its node serves it over the network, under the epoch of that attach."""
    await storage.harness.start("storage", bootstrap, "n2")
    volume = await storage.make("data")
    request = AttachRequest(project=PROJECT, name="data", holder="vm/1", node=NodeName("n2"))
    held = await storage.harness.call(ATTACH, request)
    folder = storage.harness.folder / "state" / "storage" / "fake-engine"
    spec, _ = MACHINES[folder, "n2"].graphs[volume.meta.id]
    (replica,) = spec.replicas
    assert (replica.host, replica.epoch) == ("127.0.0.1", held.epoch)
    assert serving(replica.socket, replica.export) is storage.machine.replicas[volume.meta.id]
    let_go = DetachRequest(project=PROJECT, name="data", holder="vm/1")
    await storage.harness.call(DETACH, let_go)
    assert MACHINES[folder, "n2"].graphs == {}
    again = await storage.attach("data")
    assert again.epoch == held.epoch + 1
    assert serving(replica.socket, replica.export) is None
