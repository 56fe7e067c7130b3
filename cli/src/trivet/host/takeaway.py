"""`trivet down` and `--purge`: stopping an instance, and removing every trace of it.

`down` stops guests in an orderly way and leaves nothing running, no link and no rule; data stays.
`purge` removes the rest, and checks that it is gone. Both work on whatever is left of an instance
and can be repeated.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable

from trivet.contracts.errors import TrivetError
from trivet.host import bus_admin, caller, machine, processes, teardown, traces
from trivet.host import made as record
from trivet.host.failure import failed
from trivet.host.layout import USER, Layout
from trivet.host.setup import running_supervisor
from trivet.runtime.settings import load_settings

STOP_WITHIN_S = 150.0

Say = Callable[[str], None]


def down(layout: Layout, say: Say) -> None:
    """Stop everything; data stays. Raises `Fatal` naming what could not be stopped."""
    _stop_supervisor(layout, say)
    teardown.stop_guests(layout, say)
    left = teardown.take_down(layout, say)
    if not _has_neighbour(layout):
        traces.restore_sysctls(record.load(layout).sysctls)
    if left:
        raise failed(f"still there: {_words(left)}", hint="run it again")


def purge(layout: Layout, say: Say) -> None:
    """Remove everything that the instance ever made. Raises `Fatal` naming what is left."""
    down(layout, say)
    made = record.load(layout)
    if _has_neighbour(layout):
        made = _hand_over(made)
    say("removing files")
    _remove_made_folders(made)
    caller.remove_all(layout)
    if made.unit:
        machine.remove_unit(layout)
    machine.remove_folders(layout)
    for name in (*((USER,) if made.user else ()), *made.users):
        machine.remove_user(name)
    left = traces.ours(layout, traces.snapshot(layout))
    if left:
        raise failed(f"still there: {_words(left)}", hint="run it again")


def _has_neighbour(layout: Layout) -> bool:
    """Whether the machine's own instance is there beside this one: what both use is then its."""
    return not layout.ordinary and Layout().made_file.exists()


def _hand_over(made: record.Made) -> record.Made:
    """Leave the user and the folders that both use to the machine's own instance, which will
    remove them when it goes; what is left for this one to undo."""
    other = record.load(Layout())
    folders = tuple({*other.folders, *made.folders})
    users = tuple({*other.users, *made.users})
    update = {"user": other.user or made.user, "users": users, "folders": folders}
    record.keep(Layout(), other.model_copy(update=update))
    return made.model_copy(update={"user": False, "users": (), "folders": ()})


def undo_folders(layout: Layout) -> None:
    """Remove what the instance made outside its own folders for the programs of others."""
    _remove_made_folders(record.load(layout))


def _remove_made_folders(made: record.Made) -> None:
    """Remove what is empty. A folder that is empty here may be where another instance's libvirtd
    has mounted its own: removing it would take that mount away, and libvirtd would go on in a
    folder that all such instances share."""
    elsewhere = traces.mounts_of_others()
    for folder in sorted(made.folders, reverse=True):
        if str(folder) in elsewhere:
            continue
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _stop_supervisor(layout: Layout, say: Say) -> None:
    if layout.ordinary and machine.has_systemd() and layout.unit_file.exists():
        say("stopping guests and services")
        machine.stop_unit()
    supervisor = running_supervisor(layout)
    if supervisor is None:
        _drain_without_supervisor(layout, say)
        return
    processes.send(supervisor, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    stage = ""
    while time.monotonic() < deadline and not processes.wait_gone(supervisor, 0.2):
        if (now := _stage(layout)) not in (stage, "running"):
            stage = now
            say(stage)
    processes.end(supervisor, grace_s=0)


def _drain_without_supervisor(layout: Layout, say: Say) -> None:
    """Services may have outlived their supervisor: then they can still stop the guests."""
    if not any(processes.alive(r) for r in processes.load_all(layout.processes)):
        return
    say("stopping guests")
    try:
        settings = load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})
        asyncio.run(bus_admin.drain(settings, bus_admin.DRAIN_GRACE_S))
    except TrivetError as error:
        say(f"the compute service did not stop them: {error.detail}")


def _stage(layout: Layout) -> str:
    try:
        return str(json.loads(layout.status_file.read_text())["stage"])
    except (OSError, ValueError, KeyError):
        return "stopping guests and services"


def _words(left: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(things[:5])}" for kind, things in left.items())


def require_root(command: str) -> None:
    """Refuse politely where root is needed."""
    if os.geteuid() != 0:
        raise failed(f"`{command}` needs root", hint=f"sudo ./trivet {command}")
