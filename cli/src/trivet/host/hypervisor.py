"""The private libvirtd of an instance: where it lives, and what must be there before it starts.

What it is made of is said by `libvirtd`; this module puts it into the instance's folders. Its
identity follows from the machine and the instance, so that it is the same after every start.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from trivet.host import made as record
from trivet.host.layout import Layout
from trivet.host.libvirtd import RUN_FOLDER, STATE_FOLDERS, Libvirtd, describe
from trivet.plugins.compute import cpu_groups

log = logging.getLogger(__name__)

MACHINE_ID = Path("/etc/machine-id")


def machine_id() -> str:
    """What identifies this machine for ever; empty where it has nothing of the kind."""
    return MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else ""


def libvirtd_of(layout: Layout) -> Libvirtd:
    """The libvirtd of an instance."""
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"trivet:{machine_id()}:{layout.root}")
    group = cpu_groups.group_of(layout.prefix)
    hidden = cpu_groups.idle_unified()
    return describe(
        layout.state / "libvirt",
        layout.run / "libvirt",
        str(identity),
        cgroups=group is not None and group.works,
        hide=(hidden,) if hidden else (),
    )


def make_cpu_group(layout: Layout) -> None:
    """Have the cgroup that guests are weighed and limited in, where the machine can; where it
    can't, the node tells so (`cpu_control` of its inventory)."""
    why = cpu_groups.make(layout.prefix, os.cpu_count() or 1)
    if why is not None:
        log.warning("CPU shares and limits have no effect on this node: %s", why)


def prepare_libvirtd(layout: Layout) -> None:
    """Make its folders, write its files, and see to the folders that it is mounted over."""
    wanted = [Path(target) for target in (*STATE_FOLDERS, RUN_FOLDER)]
    missing = tuple(path for path in wanted if not path.exists())
    if missing:
        known = record.load(layout)
        folders = tuple({*known.folders, *missing})
        record.keep(layout, known.model_copy(update={"folders": folders}))
    for path in missing:
        path.mkdir(parents=True)
    make_cpu_group(layout)
    libvirtd = libvirtd_of(layout)
    for folder in libvirtd.folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, text in libvirtd.files.items():
        path.write_text(text)
