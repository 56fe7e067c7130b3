"""What several suites need and takes seconds to make: the tiny guest's image, built once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from trivet.host import tiny_image


@dataclass(frozen=True)
class Built:
    """The image, the folder that its builder keeps, what it said, mounts before and after."""

    image: Path
    work: Path
    said: tuple[str, ...]
    mounts: tuple[str, str]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("tiny")
    mounts = Path("/proc/mounts")
    before = mounts.read_text()
    said: list[str] = []
    image = tiny_image.build(folder / "tiny.raw", folder / "work", said.append)
    return Built(image, folder / "work", tuple(said), (before, mounts.read_text()))
