"""Commands on one instance wait for each other, those on two do not; a dead one holds nobody."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trivet.contracts.errors import Fatal
from trivet.host.layout import Layout
from trivet.host.turns import turn

HOLD = """
import sys, time
from pathlib import Path
from trivet.host.layout import Layout
from trivet.host.turns import turn
with turn(Layout(Path(sys.argv[1])), print):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_waits_for_the_other_and_not_for_a_dead_one(tmp_path: Path) -> None:
    here, said = Layout(tmp_path / "n"), []
    here.root.mkdir()
    other = subprocess.Popen((sys.executable, "-c", HOLD, here.root), stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(Fatal, match="another trivet command"),
            turn(here, said.append, patience_s=0),
        ):
            pytest.fail("two at once")
        with turn(Layout(tmp_path / "m"), said.append, patience_s=0):
            pass
        os.kill(other.pid, signal.SIGKILL)
        with turn(here, said.append):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert not list(here.root.iterdir())


def test_what_is_started_meanwhile_does_not_hold_it(tmp_path: Path) -> None:
    here = Layout(tmp_path)
    with turn(here, print):
        started = subprocess.Popen(("sleep", "600"))
    try:
        with turn(here, print, patience_s=0):
            pass
    finally:
        started.kill()
        started.wait()
