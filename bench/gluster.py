"""Gluster with three replicas for a comparison: one daemon, three bricks, each on another disk.

fio reaches it through libgfapi, as QEMU's driver does, and without the client's `write-behind`: it
would acknowledge writes that are in the client's memory alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.enclosure import ADDRESS, enclosure, install
from bench.fio import Target

PACKAGES = ("glusterfs-server",)
VOLUME, DISK = "bench", "disk"
PRIVATE = ("/var/lib/glusterd", "/run/gluster", "/var/log/glusterfs")
BRICK = "gluster"
ENGINE_LOG = Path("/tmp/fio_gfapi.log")
"""fio leaves it behind."""


class Gluster:
    """A volume on these disks."""

    def __init__(self, folder: Path, disks: Sequence[Path], size_mib: int) -> None:
        self._folder = folder
        self._bricks = [disk / BRICK for disk in disks]

    @contextmanager
    def running(self) -> Iterator[Target]:
        """From the start of its daemons to their end."""
        install(*PACKAGES)
        with enclosure(self._folder / "log", PRIVATE) as there:
            try:
                there.start("glusterd", "--no-daemon")
                there.wait(
                    "glusterd", lambda: there.succeeds("gluster", "--mode=script", "peer", "status")
                )
                bricks = [f"{ADDRESS}:{brick}" for brick in self._bricks]
                command = ("gluster", "--mode=script", "volume")
                there.run(*command, "create", VOLUME, "replica", str(len(bricks)), *bricks, "force")
                there.run(*command, "set", VOLUME, "performance.write-behind", "off")
                there.run(*command, "start", VOLUME)
                words = ("--ioengine=gfapi_async", f"--volume={VOLUME}", f"--brick={ADDRESS}")
                yield Target((*words, f"--filename={DISK}"), there.within, there.pids())
            finally:
                ENGINE_LOG.unlink(missing_ok=True)
        for brick in self._bricks:
            shutil.rmtree(brick, ignore_errors=True)
