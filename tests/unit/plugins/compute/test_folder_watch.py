"""The kernel tells which files of a folder were written to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.plugins.compute.folder_watch import FolderWatch

WITHIN_S = 10.0
BOUND = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[FolderWatch]:
    made = FolderWatch(tmp_path)
    yield made
    made.close()


async def test_what_is_written_is_told_by_name(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "made-only").touch()
    with (tmp_path / "one.log").open("ab") as one, (tmp_path / "two.log").open("ab") as two:
        for file in (one, two, one):
            file.write(b"x")
            file.flush()
        assert await watch.written(WITHIN_S) == {"one.log", "two.log"}
        one.write(b"more")
        one.flush()
        assert await watch.written(WITHIN_S) == {"one.log"}


async def test_nothing_written_is_nothing_told(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "made-only").touch()
    assert await watch.written(0.0) == set()


async def test_too_many_are_told_as_such(watch: FolderWatch, tmp_path: Path) -> None:
    if BOUND > 100_000:
        pytest.skip(f"the kernel queues {BOUND} events")
    with (tmp_path / "a").open("ab", 0) as a, (tmp_path / "b").open("ab", 0) as b:
        for _ in range(BOUND // 2 + 1):
            a.write(b"x")
            b.write(b"x")
    told = await watch.written(WITHIN_S)
    while told:
        told = await watch.written(WITHIN_S)
    assert told is None


def test_what_is_no_folder_can_not_be_watched(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FolderWatch(tmp_path / "nowhere")
