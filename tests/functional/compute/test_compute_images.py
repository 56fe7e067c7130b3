"""Images: imported by one node, failed with a reason and nothing held, begun again when cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.compute.bootstrap import bootstrap
from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import Power
from trivet.contracts.endpoint import DeleteRequest, EditRequest
from trivet.contracts.errors import IN_USE, NOT_FOUND, UNAVAILABLE, Refused, Retry
from trivet.contracts.resource import Phase


async def until(world: Any, phase: Phase) -> Any:
    async def reached() -> bool:
        return (await world.image()).status.phase is phase

    await world.eventually(reached)
    return await world.image()


async def image_gone(world: Any) -> bool:
    try:
        await world.image()
    except Refused as error:
        return error.code is NOT_FOUND
    return False


async def test_imported_and_used(world: Any) -> None:
    await world.import_image()
    image = await until(world, Phase.READY)
    assert image.settled()
    assert (image.status.volume, image.status.progress_pct) == ("tiny-image", 100)
    assert image.status.condition("Imported").status == "true"
    volume = world.volumes.things["tiny-image"]
    assert volume.spec.size_gib == 2
    assert volume.status.attachment is None
    assert world.writer.written == [f"{volume.meta.id}.e1"]
    assert image.meta.finalizers == ("controller",)
    assert not list((world.folder / "state/compute/imports").iterdir())

    await world.create(image="tiny")
    await world.until(lambda v: v.status.power is Power.RUNNING)
    source = world.volumes.things["web-root"].spec.source
    assert (source.volume, source.mode) == ("tiny-image", "linked")
    with pytest.raises(Refused) as refused:
        await world.harness.call(IMAGES.delete, DeleteRequest(project="p", name="tiny"))
    assert refused.value.code is IN_USE
    assert "web" in refused.value.detail
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    await world.harness.call(IMAGES.delete, DeleteRequest(project="p", name="tiny"))
    await world.eventually(lambda: image_gone(world))
    assert not world.volumes.things


async def test_a_vm_waits_for_its_image_and_says_so(world: Any) -> None:
    world.writer.hold = asyncio.Event()
    await world.import_image()
    await world.create(image="tiny")
    vm = await world.until(lambda v: v.status.condition("ImageReady") is not None)
    assert vm.status.condition("ImageReady").reason == "Importing"
    assert vm.status.node is None
    world.writer.hold.set()
    vm = await world.until(lambda v: v.status.power is Power.RUNNING)
    assert vm.status.condition("ImageReady").status == "true"


async def test_the_size_of_a_disk_waits_for_the_image(world: Any) -> None:
    """A VM that leaves its disk's size to the image is refused while that is not known, and the
    refusal says how the image is."""
    world.writer.hold = asyncio.Event()
    await world.import_image(sha256="b" * 64)
    with pytest.raises(Refused, match=r"image tiny is \d+ % imported"):
        await world.create(image="tiny", disks=[])
    world.writer.hold.set()
    await until(world, Phase.FAILED)
    with pytest.raises(Refused, match="image tiny could not be imported: n1: its bytes have"):
        await world.create(image="tiny", disks=[])
    patch = {"sha256": None}
    await world.harness.call(IMAGES.edit, EditRequest(project="p", name="tiny", spec=patch))
    await until(world, Phase.READY)
    vm = await world.create(image="tiny", disks=[])
    assert [d.size_gib for d in vm.spec.disks] == [2]


@pytest.mark.parametrize("sha256", ["a" * 64, "b" * 64])
async def test_what_was_there_for_one_import_goes_with_its_end(world: Any, sha256: str) -> None:
    await world.import_image(sha256=sha256)
    await until(world, Phase.READY if sha256.startswith("a") else Phase.FAILED)
    assert world.source.forgotten == ["tiny.qcow2"]


async def test_a_wrong_digest_fails_and_holds_nothing(world: Any) -> None:
    await world.import_image(sha256="b" * 64)
    image = await until(world, Phase.FAILED)
    told = image.status.condition("Imported").message
    assert told == f"n1: its bytes have the digest {'a' * 64}, not {'b' * 64}"
    assert image.settled()
    assert image.status.volume is None
    assert not world.volumes.things
    assert not list((world.folder / "state/compute/imports").iterdir())

    patch = {"sha256": "a" * 64}
    await world.harness.call(IMAGES.edit, EditRequest(project="p", name="tiny", spec=patch))
    await until(world, Phase.READY)


async def test_a_disk_larger_than_any_volume_fails(world: Any) -> None:
    world.writer.size_bytes = 100 << 40
    await world.import_image()
    image = await until(world, Phase.FAILED)
    told = image.status.condition("Imported").message
    assert told == "n1: the disk in the image has 102400 GiB"
    assert not world.volumes.things


async def test_a_file_is_looked_for_on_every_node(world: Any) -> None:
    await world.harness.start("compute", bootstrap, "n2")
    world.source.have_file = {"n2"}
    await world.import_image()
    image = await until(world, Phase.READY)
    assert (image.status.node, image.status.tried) == ("n2", ("n1",))


async def test_a_file_that_is_nowhere_fails(world: Any) -> None:
    world.source.have_file = set()
    await world.import_image()
    image = await until(world, Phase.FAILED)
    told = image.status.condition("Imported").message
    assert told == "no node has the file tiny.qcow2 (looked on n1)"
    assert not world.volumes.things


async def test_an_unreachable_source_is_tried_again_and_told(world: Any) -> None:
    world.source.error = Retry(UNAVAILABLE, "the server is away", retry_after_s=0.05)
    await world.import_image()

    async def told() -> bool:
        condition = (await world.image()).status.condition("Imported")
        return condition is not None and condition.message == "the server is away"

    await world.eventually(told)
    world.source.error = None
    await until(world, Phase.READY)


async def test_an_import_that_is_cut_begins_again(world: Any) -> None:
    world.writer.hold = asyncio.Event()
    await world.import_image()
    await world.eventually(
        lambda: (
            world.volumes.things["tiny-image"].status.attachment
            if "tiny-image" in world.volumes.things
            else None
        )
    )
    await world.crash()
    world.writer.hold = None
    await world.start()
    await until(world, Phase.READY)
    assert world.volumes.created == ["tiny-image"]
    assert world.source.fetches == 2


async def test_an_image_deleted_while_it_is_imported(world: Any) -> None:
    world.writer.hold = asyncio.Event()
    await world.import_image()
    await world.eventually(lambda: "tiny-image" in world.volumes.things)
    await world.harness.call(IMAGES.delete, DeleteRequest(project="p", name="tiny"))
    await world.eventually(lambda: image_gone(world))
    assert not world.volumes.things
    assert world.writer.written == []
