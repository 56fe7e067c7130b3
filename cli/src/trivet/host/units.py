"""What the supervisor runs: each process of a node, as whom, and after which others.

The order is the order of starting; stopping is the reverse. Guests, block exports and name
servers are not here: they belong to drivers, which find them again, so that a restart of
anything listed here leaves them alone.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import SERVICES, USER, Layout

BUS = "nats"
LIBVIRTD = "libvirtd"
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "TZ")
LAB_CLOCK = ("LD_PRELOAD", "LAB_CLOCK")
"""By which the lab gives a node a clock of its own; passed on where both are there."""

FILES_LIMIT = 65536
ARENAS = "2"
"""The C library's heaps in a process: one a thread, as it would have it, keeps memory that is
not used."""


@dataclass(frozen=True)
class Unit:
    """One process. `user` None: root. `grace_s`: what it gets to end when asked to.
    `after`: units that must be ready before it is started."""

    name: str
    argv: tuple[str, ...]
    user: str | None = None
    after: tuple[str, ...] = ()
    grace_s: float = 10.0


def units_of(layout: Layout, *, witness: bool = False) -> tuple[Unit, ...]:
    """The processes of an instance, in order of starting; a witness has the bus alone."""
    python = str(layout.venv / "bin/python")
    bus = Unit(
        BUS,
        (str(layout.venv / "bin/nats-server"), "-c", str(layout.bus_config)),
        user=USER,
        grace_s=20.0,
    )
    if witness:
        return (bus,)
    services = tuple(
        Unit(
            name,
            (python, "-m", f"trivet.{name}"),
            user=USER if name == "gateway" else None,
            after=(BUS, LIBVIRTD) if name == "compute" else (BUS,),
        )
        for name in SERVICES
    )
    return (bus, Unit(LIBVIRTD, libvirtd_of(layout).argv), *services)


def environment(layout: Layout) -> dict[str, str]:
    """The environment of every process: nothing of the caller's but proxies and the like."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.lower() in PASSED_ON
    }
    if all(name in os.environ for name in LAB_CLOCK):
        passed |= {name: os.environ[name] for name in LAB_CLOCK}
    return passed | {
        "PATH": f"{layout.venv / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(layout.state),
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": ARENAS,
        "TRIVET_SETTINGS": str(layout.settings_file),
    }


def ids_of(user: str | None) -> tuple[int, int]:
    """The user and group id of a unit."""
    if user is None:
        return 0, 0
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def is_ours(argv: list[str], layout: Layout) -> bool:
    """Whether a command line can only be a unit of this instance: a program of its own
    environment, run as a unit is."""
    if not argv or Path(argv[0]).parent != layout.venv / "bin":
        return False
    if Path(argv[0]).name == "nats-server":
        return argv[1:] == ["-c", str(layout.bus_config)]
    return len(argv) > 2 and argv[1] == "-m" and argv[2].removeprefix("trivet.") in SERVICES
