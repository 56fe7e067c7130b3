"""A folder that another mount namespace has a mount on is not taken away by a purge."""

import subprocess
from pathlib import Path

import pytest

from trivet.host import made, takeaway, traces
from trivet.host.layout import Layout

pytestmark = pytest.mark.root

HOLD = "mount --bind {ours} {target} && touch {target}/kept && echo there && read line"


def test_a_folder_that_another_instance_uses_stays(tmp_path: Path) -> None:
    ours, used, unused = (tmp_path / name for name in ("ours", "used", "unused"))
    for folder in (ours, used, unused):
        folder.mkdir()
    layout = Layout(tmp_path / "root")
    layout.state.mkdir(parents=True)
    made.keep(layout, made.load(layout).model_copy(update={"folders": (used, unused)}))
    script = HOLD.format(ours=ours, target=used)
    argv = ("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-ec", script)
    other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"there\n"
        assert str(used) in traces.mounts_of_others()
        takeaway.undo_folders(layout)
        assert used.is_dir()
        assert not unused.exists()
        assert (Path(f"/proc/{other.pid}/root") / used.relative_to("/") / "kept").exists()
    finally:
        other.communicate(b"\n", timeout=30)
    takeaway.undo_folders(layout)
    assert not used.exists()
