"""A guest's console, with a shell of this machine behind its socket that echoes what is typed."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.testing.lab.console import Console, ConsoleTail, NoAnswer
from trivet.testing.lab.node import until


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield path
        thread.join()


def serve(server: socket.socket) -> None:
    """One caller, until it leaves; what is typed is typed back, as a terminal does."""
    line, _ = server.accept()
    with line:
        subprocess.run(
            ("sh", "-c", 'while read -r typed; do echo "$typed"; eval "$typed"; done'),
            stdin=line,
            stdout=line,
            stderr=line,
            check=False,
        )


def test_an_answer_is_what_was_printed_between_echo_and_prompt(console: Path):
    with Console(console) as line:
        assert line.ask("echo one; echo two", 10) == "one\ntwo"
        assert line.ask("printf 12", 10) == "12"
        assert line.ask("value=7; (echo $value) & wait", 10) == "7"
        line.tell("echo no; false")
        assert line.heard(10) == ("no", 1)
        with pytest.raises(AssertionError, match="ended with 3"):
            line.ask("(exit 3)", 10)


def test_one_who_says_nothing_is_not_waited_for(console: Path):
    with Console(console) as line:
        line.tell("read -r never")
        with pytest.raises(NoAnswer):
            line.heard(0.2)


def test_a_console_that_closes_is_told(console: Path):
    with Console(console) as line, pytest.raises(NoAnswer, match="closed"):
        line.ask("exit", 10)


def test_a_log_is_read_on_where_the_guest_begins_anew(tmp_path: Path):
    log = tmp_path / "log"
    log.write_bytes(b"what was shown before is not read\r\nacked ")
    with ConsoleTail(log) as tail:
        with log.open("ab") as file:
            file.write(b"1.\r\nacked 2.\r\nhalf")
        until("it is read", lambda: len(tail.lines) == 2, 10, 0.01)
        log.write_bytes(b"")
        with log.open("ab") as file:
            file.write(b"boots\r\n")
        until("it is read on", lambda: [t for _, t in tail.lines][-1] == "boots", 10, 0.01)
    assert [text for _, text in tail.lines] == ["1.", "acked 2.", "boots"]
