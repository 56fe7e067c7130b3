"""A node's clock in the lab is set from one moment to the next, for those who ask for the time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from trivet.host.layout import Layout
from trivet.testing.lab import clocks

ASKS = """\
import datetime, sys, time
for line in sys.stdin:
    now = datetime.datetime.now(datetime.UTC).timestamp()
    print(time.time(), now, time.monotonic(), flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def node(tmp_path: Path) -> Layout:
    clocks.make_library(Layout(tmp_path))
    layout = Layout(tmp_path / "n1")
    layout.root.mkdir()
    return layout


def test_a_process_that_runs_sees_its_clock_set(tmp_path: Path, node: Layout) -> None:
    clocks.set_ahead(node, 0)
    env = clocks.environment(Layout(tmp_path), node)
    with subprocess.Popen(
        (sys.executable, "-c", ASKS), env=env, stdin=-1, stdout=-1, text=True
    ) as asking:
        assert asking.stdin
        assert asking.stdout
        for seconds in (0, 3600, -86400, 0):
            clocks.set_ahead(node, seconds)
            assert clocks.ahead(node) == seconds
            before = time.time()
            asking.stdin.write("\n")
            asking.stdin.flush()
            told, also, monotonic = map(float, asking.stdout.readline().split())
            after = time.time()
            assert before + seconds - 1 <= told <= after + seconds + 1
            assert abs(also - told) < 1
            assert abs(monotonic - time.monotonic()) < 60
        asking.stdin.close()
    assert asking.returncode == 0


def test_one_whose_clock_was_never_set_has_the_machines(tmp_path: Path, node: Layout) -> None:
    env = clocks.environment(Layout(tmp_path), node)
    command = (sys.executable, "-c", "import time; print(time.time())")
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert abs(float(told) - time.time()) < 60
    assert clocks.ahead(node) == 0
