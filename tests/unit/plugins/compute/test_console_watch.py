"""A console's log tells once when a guest is ready, and stays small."""

from pathlib import Path

import pytest

from trivet.plugins.compute import console_watch
from trivet.plugins.compute.console_watch import ConsoleLog, shows_ready


@pytest.fixture
def log(tmp_path: Path) -> ConsoleLog:
    made = ConsoleLog(tmp_path / "logs/vm-1.log")
    made.start()
    return made


def show(log: ConsoleLog, text: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(text)


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        (b"READY\r\n", True),
        (b"boot\r\nREADY\n", True),
        (b"\x1b[2JREADY \n", True),
        (b"\nubuntu login: ", True),
        (b"NOT READY\n", False),
        (b"READY", False),
        (b"last login was: never", False),
        (b"ALREADY\n", False),
    ],
)
def test_what_shows_that_a_guest_is_ready(text: bytes, ready: bool) -> None:
    assert shows_ready(text) is ready


def test_ready_is_found_once_even_in_pieces(log: ConsoleLog) -> None:
    show(log, b"booting\r\nREA")
    assert not log.look()
    show(log, b"DY\r\n")
    assert log.look()
    assert not log.look()
    assert log.ready


def test_a_restarted_driver_knows(log: ConsoleLog) -> None:
    show(log, b"READY\r\n")
    assert log.look()
    assert ConsoleLog(log.path).ready


def test_a_restart_asks_for_ready_anew(log: ConsoleLog) -> None:
    show(log, b"READY\r\n")
    assert log.look()
    log.restart()
    assert not log.ready
    assert not log.look()
    show(log, b"READY\r\n")
    assert log.look()
    assert log.tail(1000) == b"READY\r\nREADY\r\n"


def test_a_start_forgets(log: ConsoleLog) -> None:
    show(log, b"READY\r\n")
    assert log.look()
    log.start()
    assert not log.ready
    assert log.tail(1000) == b""


def test_a_talkative_guest_fills_no_disk(log: ConsoleLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_watch, "LOG_BOUND_BYTES", 1000)
    monkeypatch.setattr(console_watch, "KEPT_BYTES", 100)
    show(log, b"READY\r\n" + b"x" * 2000)
    assert log.look()
    assert log.path.stat().st_size == 0
    show(log, b"end")
    log.look()
    assert log.tail(10) == b"xxxxxxxend"
    assert len(log.tail(10_000)) == 103
    log.remove()
    assert list(log.path.parent.iterdir()) == []
