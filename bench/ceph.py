"""Ceph with three copies for a comparison: one monitor, three OSDs (BlueStore), each in a file on
another disk. Its authentication is on, as it comes.

fio reaches it through librbd, as QEMU's driver does, without librbd's cache, as a disk with
`cache=none` has it: it would acknowledge writes that are in the client's memory alone.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.enclosure import ADDRESS, Enclosure, enclosure, install
from bench.fio import Target

PACKAGES = ("ceph-mon", "ceph-osd", "ceph-common")
POOL, IMAGE = "rbd", "disk"
PLACEMENT_GROUPS = 32
PRIVATE = ("/var/lib/ceph", "/run/ceph", "/var/log/ceph")
OSD = "ceph-osd"
OSD_GIB = 3
SETTINGS = """\
[global]
fsid = {fsid}
mon_host = {address}
mon_initial_members = a
keyring = {folder}/keyring
osd_pool_default_size = {copies}
osd_pool_default_min_size = 2
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
mon_allow_pool_size_one = true
mon_data = {folder}/mon
mon_data_avail_crit = 1
osd_data = {folder}/osd$id
bluestore_block_size = {osd_bytes}

[client]
rbd_cache = false

[osd]
keyring = {folder}/osd$id/keyring
"""


class Ceph:
    """An image on these disks."""

    def __init__(self, folder: Path, disks: Sequence[Path], size_mib: int) -> None:
        self._folder = folder
        self._settings = folder / "ceph.conf"
        self._stores = [disk / OSD for disk in disks]
        self._size_mib = size_mib

    @contextmanager
    def running(self) -> Iterator[Target]:
        """From the start of its daemons to their end."""
        install(*PACKAGES)
        fsid = str(uuid.uuid4())
        self._settings.write_text(
            SETTINGS.format(
                fsid=fsid,
                address=ADDRESS,
                copies=len(self._stores),
                folder=self._folder,
                osd_bytes=OSD_GIB << 30,
            )
        )
        try:
            with enclosure(self._folder / "log", PRIVATE) as there:
                self._start_monitor(there, fsid)
                for number, store in enumerate(self._stores):
                    self._start_osd(there, number, store)
                there.wait("Ceph's OSDs", lambda: self._all_up(there))
                self._tool(there, "ceph", "osd", "pool", "create", POOL, str(PLACEMENT_GROUPS))
                self._tool(
                    there, "rbd", "create", "--size", f"{self._size_mib}M", f"{POOL}/{IMAGE}"
                )
                words = ("--ioengine=rbd", "--clientname=admin", f"--pool={POOL}")
                found = ("env", f"CEPH_CONF={self._settings}", *there.within)
                yield Target((*words, f"--rbdname={IMAGE}"), found, there.pids())
        finally:
            for store in self._stores:
                shutil.rmtree(store, ignore_errors=True)

    def _tool(self, there: Enclosure, name: str, *argv: str) -> str:
        return there.run(name, "--conf", str(self._settings), *argv)

    def _start_monitor(self, there: Enclosure, fsid: str) -> None:
        (self._folder / "mon").mkdir()
        map_ = str(self._folder / "map")
        there.run("monmaptool", "--create", "--fsid", fsid, "--add", "a", ADDRESS, map_)
        keys = ("ceph-authtool", str(self._folder / "keyring"), "--gen-key")
        there.run(*keys, "--create-keyring", "-n", "mon.", "--cap", "mon", "allow *")
        everything = (
            "--cap",
            "mon",
            "allow *",
            "--cap",
            "osd",
            "allow *",
            "--cap",
            "mgr",
            "allow *",
        )
        there.run(*keys, "-n", "client.admin", *everything)
        self._tool(there, "ceph-mon", "--mkfs", "-i", "a", "--monmap", map_, "--keyring", keys[1])
        there.start("ceph-mon", "--conf", str(self._settings), "-i", "a", "-f")
        status = ("ceph", "--conf", str(self._settings), "--connect-timeout=2", "status")
        there.wait("Ceph's monitor", lambda: there.succeeds(*status))

    def _start_osd(self, there: Enclosure, number: int, store: Path) -> None:
        store.mkdir()
        (self._folder / f"osd{number}").symlink_to(store)
        name = str(uuid.uuid4())
        self._tool(there, "ceph", "osd", "new", name, str(number))
        allowed = ("mon", "allow profile osd", "osd", "allow *")
        key = ("-o", str(store / "keyring"))
        self._tool(there, "ceph", "auth", "get-or-create", f"osd.{number}", *allowed, *key)
        self._tool(there, OSD, "-i", str(number), "--mkfs", "--osd-uuid", name)
        place = (f"osd.{number}", "1", "root=default", f"host=host{number}")
        self._tool(there, "ceph", "osd", "crush", "add", *place)
        there.start(OSD, "--conf", str(self._settings), "-i", str(number), "-f")

    def _all_up(self, there: Enclosure) -> bool:
        """Whether all OSDs take part."""
        asked = ("ceph", "--conf", str(self._settings), "osd", "stat", "--format=json")
        told = json.loads(there.run(*asked))
        return int(told["num_up_osds"]) == len(self._stores)
