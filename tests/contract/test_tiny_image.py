"""The tiny guest's image is built in files only, and found again."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from trivet.host import tiny_image

pytestmark = pytest.mark.root


def test_an_image_is_built_and_found_again(tiny: Any, tmp_path: Path) -> None:
    assert tiny.mounts[0] == tiny.mounts[1]
    said: list[str] = []
    first, again = tiny.image, tiny_image.build(tmp_path / "b.raw", tiny.work, said.append)
    assert (len(tiny.said), len(said)) == (2, 0)
    assert first.read_bytes() == again.read_bytes()
    assert first.stat().st_size == tiny_image.IMAGE_MIB * 1024 * 1024
    assert first.read_bytes()[510:512] == b"\x55\xaa"
    offset = tiny_image.BOOT_START_SECTOR * tiny_image.SECTOR_BYTES
    listed = subprocess.run(
        ["mdir", "-a", "-b", "-i", f"{first}@@{offset}", "::"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {"LINUX", "INITRD.GZ", "ldlinux.sys"} <= {
        line.removeprefix("::/") for line in listed.splitlines()
    }
    assert list(tiny.work.iterdir()) == list(tiny.work.glob("tiny-*.raw"))
