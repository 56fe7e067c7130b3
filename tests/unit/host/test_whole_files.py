"""Files of a node are there whole or as they were before."""

from pathlib import Path

import pytest

from trivet.host.config_files import ensure_settings
from trivet.host.layout import Layout
from trivet.host.whole_files import write_secret, write_whole


def test_a_whole_file_has_its_content_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one", 0o644)
    write_whole(path, b"two", 0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o644)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_cut_left_half_done_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".secret.new").write_bytes(b"half")
    write_secret(tmp_path / "secret", b"whole")
    assert (tmp_path / "secret").read_bytes() == b"whole"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_settings_that_can_t_be_written_whole_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.etc.mkdir(parents=True)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        ensure_settings(layout)
    assert not layout.settings_file.exists()
