"""The lab's disks without nodes: each fault is what the kernel sees of a real one."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.contracts.errors import Refused
from trivet.testing.lab import disks
from trivet.testing.lab.disks import Disk
from trivet.testing.lab.node import until
from trivet.testing.lab.plan import LabPlan

pytestmark = pytest.mark.root

BLOCK = 4096
STUCK_S = 1.0


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Disk, ...]]:
    """A node's two disks, the first of them solid-state."""
    root = Path(tempfile.mkdtemp(prefix="tv-disks-"))
    plan = LabPlan(root=root, nodes=1, disks=2, ssd=1, net=0)
    made = disks.disks_of(plan, "n1")
    try:
        for disk in made:
            disks.attach(disk)
        yield made
    finally:
        for disk in made:
            disks.detach(disk)
        shutil.rmtree(root)


@pytest.fixture
def disk(two: tuple[Disk, ...]) -> Iterator[Disk]:
    """The first of them, well again afterwards."""
    yield two[0]
    disks.put_in(two[0])
    assert disks.state(two[0]) == "well"


def write(disk: Disk, at: int = 0, byte: bytes = b"x") -> None:
    """Write a block past all caches. Raises `OSError` as the kernel tells it."""
    block = mmap.mmap(-1, BLOCK)  # which O_DIRECT wants aligned
    block.write(byte * BLOCK)
    handle = os.open(disk.link.resolve(), os.O_WRONLY | os.O_DIRECT)
    try:
        os.pwrite(handle, block, at)
    finally:
        os.close(handle)


def read(disk: Disk, at: int = 0) -> bytes:
    """Read a block past all caches."""
    block = mmap.mmap(-1, BLOCK)
    handle = os.open(disk.link.resolve(), os.O_RDONLY | os.O_DIRECT)
    try:
        os.preadv(handle, [block], at)
    finally:
        os.close(handle)
    return bytes(block)


def test_a_disk_keeps_what_is_written_and_says_what_it_is(two: tuple[Disk, ...]) -> None:
    kinds = [(Path("/sys/block") / d.link.resolve().name / "queue/rotational") for d in two]
    assert [kind.read_text().strip() for kind in kinds] == ["0", "1"]
    for number, disk in enumerate(two):
        write(disk, byte=bytes([65 + number]))
    assert [read(disk)[:1] for disk in two] == [b"A", b"B"]
    for disk in two:
        disks.attach(disk)  # which is there already
    assert read(two[0])[:1] == b"A"


def test_a_failing_disk_gives_errors_and_no_data(disk: Disk) -> None:
    write(disk)
    disks.fail(disk)
    assert disks.state(disk) == "fails"
    for action in (write, read):
        with pytest.raises(OSError, match="Input/output error"):
            action(disk)
    disks.put_in(disk)
    assert read(disk) == b"x" * BLOCK


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_stuck_disk_holds_requests_until_it_is_well_or_its_node_dies(
    disk: Disk, power_cut: bool
) -> None:
    disks.stick(disk)
    ended: list[str] = []

    def writing() -> None:
        try:
            write(disk)
        except OSError:
            ended.append("failed")
        else:
            ended.append("written")

    thread = threading.Thread(target=writing, daemon=True)
    thread.start()
    thread.join(STUCK_S)
    assert ended == []
    if power_cut:
        with disks.without_power([disk]):
            thread.join(30)
        assert ended == ["failed"]
    else:
        disks.put_in(disk)
        thread.join(30)
        assert ended == ["written"]


def test_a_slow_disk_answers_late_and_can_be_anything_else_next(disk: Disk) -> None:
    disks.slow(disk, 50)
    assert disks.state(disk) == "slow"
    write(disk)
    disks.slow(disk, 20)
    assert read(disk) == b"x" * BLOCK
    disks.pull(disk)
    assert disks.state(disk) == "pulled"


def test_a_pulled_disk_is_not_in_its_node(disk: Disk) -> None:
    device = disk.link.resolve()
    disks.pull(disk)
    assert not disk.link.exists()
    handle = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.preadv(handle, [mmap.mmap(-1, BLOCK)], 0)
    finally:
        os.close(handle)
    disks.put_in(disk)
    until("it is there", disk.link.exists, 5)


def test_flipped_bytes_are_in_what_is_held_and_a_seed_finds_them_again(disk: Disk) -> None:
    write(disk, at=BLOCK * 100)
    places = disks.corrupt(disk, 5, seed=3)
    assert len(set(places)) == 5
    for place in places:
        block = read(disk, at=place // BLOCK * BLOCK)
        assert block[place % BLOCK] != ord("x")
        assert bin(block[place % BLOCK] ^ ord("x")).count("1") <= 8
    assert disks.corrupt(disk, 5, seed=3) == places
    assert read(disk, at=BLOCK * 100) == b"x" * BLOCK or not any(
        BLOCK * 100 <= place < BLOCK * 101 for place in places
    )
    with pytest.raises(Refused):
        disks.corrupt(disk, 1 << 40)
