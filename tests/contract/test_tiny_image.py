"""The tiny guest's image is built in files only, and found again."""

import subprocess
from pathlib import Path

import pytest

from trivet.host import tiny_image

pytestmark = pytest.mark.root


def test_an_image_is_built_and_found_again(tmp_path: Path) -> None:
    mounts = Path("/proc/mounts").read_text()
    said: list[str] = []
    first = tiny_image.build(tmp_path / "a.raw", tmp_path / "work", said.append)
    built = len(said)
    again = tiny_image.build(tmp_path / "b.raw", tmp_path / "work", said.append)
    assert (built, len(said)) == (2, 2)
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
    assert [path.name for path in (tmp_path / "work").iterdir()] == [
        path.name for path in (tmp_path / "work").glob("tiny-*.raw")
    ]
    assert Path("/proc/mounts").read_text() == mounts
