"""The command-line configuration of whoever called `up`: address, token, authority.

With sudo that is the person before sudo, not root. An instance with a root folder of its own
never touches a person's configuration: its file lies under its root, named by `TRIVET_CONFIG`.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivet.host import made as record
from trivet.host.layout import Layout
from trivet.host.whole_files import write_secret

ASIDE = ".before-trivet-up"


@dataclass(frozen=True)
class ClientFile:
    """Where the caller's configuration is, and whose it is."""

    path: Path
    user: int
    group: int


def client_file(layout: Layout, env: Mapping[str, str]) -> ClientFile:
    """The caller's configuration file."""
    if not layout.ordinary:
        return ClientFile(layout.etc / "client.toml", os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(env["SUDO_USER"])
    except KeyError:
        entry = pwd.getpwuid(os.geteuid())
    home = Path(entry.pw_dir)
    return ClientFile(home / ".config/trivet/config.toml", entry.pw_uid, entry.pw_gid)


def write(
    layout: Layout, file: ClientFile, url: str, token: str, other_urls: Sequence[str] = ()
) -> None:
    """Write the configuration; one that was there and is not ours is put aside."""
    known = record.load(layout)
    values: dict[str, object] = {"url": url, "token": token, "ca_file": str(_ca(layout, file))}
    if other_urls:
        values["other_urls"] = list(other_urls)
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    if file.path.exists() and file.path.read_text() == text and _ca(layout, file).exists():
        return
    folders = [f for f in file.path.parents if not f.exists()]
    kept = {*known.client_files, file.path}
    kept_folders = {*known.client_folders, *folders}
    record.keep(
        layout,
        known.model_copy(
            update={"client_files": tuple(kept), "client_folders": tuple(kept_folders)}
        ),
    )
    for folder in reversed(folders):
        folder.mkdir(mode=0o700)
        os.chown(folder, file.user, file.group)
    if file.path.exists() and file.path not in known.client_files:
        file.path.replace(file.path.with_name(file.path.name + ASIDE))
    _ca(layout, file).write_bytes(layout.ca_file.read_bytes())
    write_secret(file.path, text.encode())
    for path in (file.path, _ca(layout, file)):
        os.chown(path, file.user, file.group)


def remove_all(layout: Layout) -> None:
    """Undo every `write`, for all callers there were."""
    known = record.load(layout)
    for path in known.client_files:
        path.unlink(missing_ok=True)
        path.with_name("ca.pem").unlink(missing_ok=True)
        aside = path.with_name(path.name + ASIDE)
        if aside.exists():
            aside.replace(path)
    for folder in sorted(known.client_folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _ca(layout: Layout, file: ClientFile) -> Path:
    return layout.ca_file if not layout.ordinary else file.path.with_name("ca.pem")
