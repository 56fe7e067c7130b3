"""The parts of the machine that an instance needs beside its own folders, and their undoing.

The service user, the kernel's settings as they were, the systemd unit. Folders and their owners
are here too, because the user is what they are about.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from trivet.host import made as record
from trivet.host import traces
from trivet.host.failure import failed
from trivet.host.layout import LIBVIRT_USER, USER, Layout

UNIT = """\
[Unit]
Description=Trivet node
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={python} -m trivet.host.supervise --root {root} --version {version}
Restart=on-failure
# Guests and their disks are no children of ours to end, and a dead supervisor's services run on.
KillMode=process
TimeoutStopSec=180
LimitNOFILE=65536
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def ensure_user(layout: Layout) -> int:
    """The id of the service user, made where there is none."""
    try:
        return pwd.getpwnam(USER).pw_uid
    except KeyError:
        record.keep(layout, record.load(layout).model_copy(update={"user": True}))
    _add_user(USER)
    return pwd.getpwnam(USER).pw_uid


def ensure_libvirt_user(layout: Layout) -> None:
    """Make the user that libvirtd wants to know of, where there is none."""
    try:
        pwd.getpwnam(LIBVIRT_USER)
    except KeyError:
        known = record.load(layout)
        users = tuple({*known.users, LIBVIRT_USER})
        record.keep(layout, known.model_copy(update={"users": users}))
        _add_user(LIBVIRT_USER)


def _add_user(name: str) -> None:
    home = ("--home-dir", "/nonexistent", "--no-create-home", "--shell", "/usr/sbin/nologin")
    done = subprocess.run(
        ("useradd", "--system", "--user-group", *home, name),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise failed(f"the user {name} could not be made: {done.stderr.strip()}")


def remove_user(name: str) -> None:
    """Remove a user that we made; gone already is fine."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return
    subprocess.run(("userdel", name), capture_output=True, check=False)


def make_folders(layout: Layout) -> None:
    """All folders of the instance, with who may read them."""
    for folder in layout.folders:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    layout.processes.mkdir(mode=0o755, exist_ok=True)
    layout.log.chmod(0o750)


def give_to_user(path: Path, user: int) -> None:
    """Make a folder that only the service user can use."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(path, user, -1)


def remember_sysctls(layout: Layout) -> None:
    """Record the kernel's settings as they are, before drivers change them; the first record
    counts, for a later one could hold our own values. Settings that come with a module which is
    loaded later join when they are first seen."""
    known = record.load(layout)
    joined = traces.sysctls() | known.sysctls
    if joined != known.sysctls:
        record.keep(layout, known.model_copy(update={"sysctls": joined}))


def has_systemd() -> bool:
    """Whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


def install_unit(layout: Layout, version: str) -> None:
    """Write the systemd unit and have it start at boot."""
    python = layout.venv / "bin/python"
    text = UNIT.format(python=python, root=layout.root, version=version)
    if layout.unit_file.exists() and layout.unit_file.read_text() == text:
        return
    record.keep(layout, record.load(layout).model_copy(update={"unit": True}))
    layout.unit_file.write_text(text)
    _systemctl("daemon-reload")
    _systemctl("enable", layout.unit_file.name)


def remove_unit(layout: Layout) -> None:
    """Remove the systemd unit."""
    if layout.unit_file.exists():
        _systemctl("disable", layout.unit_file.name)
        layout.unit_file.unlink(missing_ok=True)
        _systemctl("daemon-reload")


def start_unit() -> None:
    """Have systemd start the supervisor."""
    _systemctl("restart", "trivet.service")


def stop_unit() -> None:
    """Tell systemd that the supervisor is to be stopped."""
    _systemctl("stop", "trivet.service")


def remove_folders(layout: Layout) -> None:
    """Remove every folder of the instance, and with a root folder of its own what is empty
    above them."""
    for folder in layout.folders:
        shutil.rmtree(folder, ignore_errors=True)
    if layout.ordinary:
        return
    for folder in sorted(layout.root.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(
        ("systemctl", *arguments), capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise failed(f"systemctl {arguments[0]} failed: {done.stderr.strip()}")
