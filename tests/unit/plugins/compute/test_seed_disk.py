"""A seed's disk is read back as cloud-init would read it, and is its owner's alone."""

import io
from pathlib import Path

import pycdlib

from trivet.contracts.compute.seed import Seed
from trivet.plugins.compute.seed_disk import iso_of, put

SEED = Seed(user_data="#cloud-config\n" + "#" * 5000, meta_data='{"a": 1}', network_config="{}")


def files_of(image: bytes, how: str) -> dict[str, bytes]:
    """The files of an ISO by the names of Rock Ridge (`rr_path`) or Joliet (`joliet_path`)."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    found = {}
    for name in ("user-data", "meta-data", "network-config"):
        data = io.BytesIO()
        iso.get_file_from_iso_fp(data, **{how: f"/{name}"})
        found[name] = data.getvalue()
    iso.close()
    return found


def test_the_files_are_there_under_their_names() -> None:
    image = iso_of(SEED)
    assert image[32768 + 40 : 32768 + 72].rstrip() == b"CIDATA"
    assert files_of(image, "rr_path") == SEED.files
    assert files_of(image, "joliet_path") == SEED.files
    assert len(image) < 512 * 1024


def test_it_is_put_whole_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "vm-1.iso"
    put(path, SEED)
    with path.open("rb") as held:  # as by a running guest
        put(path, Seed(user_data="new", meta_data="", network_config=""))
        assert files_of(held.read(), "rr_path") == SEED.files
    assert path.stat().st_mode & 0o777 == 0o600
    assert files_of(path.read_bytes(), "rr_path")["user-data"] == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["vm-1.iso"]
    for _ in range(2):
        put(path, None)
    assert list(tmp_path.iterdir()) == []
