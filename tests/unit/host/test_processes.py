"""Processes by pid and start time: real ones, made here."""

import shutil
import signal
import subprocess
from dataclasses import replace

import pytest

from trivet.host import processes


@pytest.fixture
def child():
    process = subprocess.Popen(("sleep", "600"))
    yield process
    process.kill()
    process.wait()


def test_a_command_name_can_hold_anything():
    fields = " ".join(["S", *map(str, range(4, 22)), "4711", "0"])
    assert processes.start_time(f"12 (evil) name) 1 (x) {fields}") == 4711


def test_a_record_survives_being_kept(child, tmp_path):
    record = processes.record_of("a", child.pid, "v1")
    processes.save(record, tmp_path / "p")
    assert processes.load_all(tmp_path / "p") == [record]
    assert processes.alive(record)
    processes.forget("a", tmp_path / "p")
    processes.forget("a", tmp_path / "p")
    assert processes.load("a", tmp_path / "p") is None


def test_half_a_record_is_no_record(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "a"')
    (tmp_path / "b.json").write_text('{"name": "b"}')
    assert processes.load_all(tmp_path) == []


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_another_process_with_the_same_pid_is_not_touched(child, change):
    stranger = replace(processes.record_of("a", child.pid), **change)
    assert not processes.alive(stranger)
    assert not processes.send(stranger, signal.SIGKILL)
    processes.end(stranger)
    assert child.poll() is None


def test_ending_asks_first_and_then_insists():
    stubborn = subprocess.Popen(
        ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"), stdout=subprocess.PIPE
    )
    assert stubborn.stdout.readline() == b"ready\n"
    record = processes.record_of("stubborn", stubborn.pid)
    processes.end(record, grace_s=0.2)
    assert stubborn.wait() == -signal.SIGKILL
    stubborn.stdout.close()
    processes.end(record)


def test_a_dead_child_that_was_not_waited_for_is_gone():
    done = subprocess.Popen(("true",))
    with_pidfd = processes.os.pidfd_open(done.pid)
    processes.select.select([with_pidfd], [], [])
    processes.os.close(with_pidfd)
    assert processes.record_of("x", done.pid) is None
    done.wait()


@pytest.mark.root
def test_a_process_in_another_root_is_told_from_ours(tmp_path, child):
    shutil.copy("/bin/busybox", tmp_path / "busybox")
    elsewhere = subprocess.Popen(
        ("chroot", str(tmp_path), "/busybox", "sh", "-c", "echo in; exec /busybox sleep 60"),
        stdout=subprocess.PIPE,
    )
    try:
        assert elsewhere.stdout.readline() == b"in\n"
        assert processes.program(elsewhere.pid).endswith("/busybox")
        assert not processes.in_our_root(elsewhere.pid)
        assert processes.in_our_root(child.pid)
    finally:
        elsewhere.kill()
        elsewhere.communicate()
