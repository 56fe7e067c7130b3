"""What `up` found and made on the machine outside Trivet's own folders, kept for `purge`.

Each fact is on disk before the change it is about, so that a crash in between leaves at most a
fact about a change that was not made, which undoing bears.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trivet.contracts.model import Model
from trivet.host.layout import Layout
from trivet.host.whole_files import write_secret


class Made(Model):
    """`user`: the service user was made by us; `users`: others that were.
    `sysctls`: kernel settings as they were before. `client_files`: callers' configuration
    files, and `client_folders` folders for them. `unit`: the systemd unit is ours.
    `folders`: empty folders that others' programs wanted."""

    user: bool = False
    users: tuple[str, ...] = ()
    unit: bool = False
    folders: tuple[Path, ...] = ()
    sysctls: dict[str, str] = {}
    client_files: tuple[Path, ...] = ()
    client_folders: tuple[Path, ...] = ()


def load(layout: Layout) -> Made:
    """What is recorded; nothing, where there is no record that can be read."""
    try:
        return Made.model_validate_json(layout.made_file.read_text())
    except (FileNotFoundError, ValidationError):
        return Made()


def keep(layout: Layout, made: Made) -> None:
    """Record it."""
    write_secret(layout.made_file, made.model_dump_json(indent=1).encode())
