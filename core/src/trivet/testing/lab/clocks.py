"""The wall clocks of the lab's nodes: each may be ahead of the machine's, or behind, and is set
while the node runs.

A small library is preloaded into a node's processes (`clock.c`), which reads from a file of the
node's how far. The bus's server, which asks the kernel itself, and guests keep the machine's
time, as do the times of files.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from trivet.host.failure import failed
from trivet.host.layout import Layout

SOURCE = Path(__file__).with_name("clock.c")


def make_library(base: Layout) -> None:
    """Build the library that nodes preload, where it is not there."""
    library = library_of(base)
    if library.exists():
        return
    library.parent.mkdir(parents=True, exist_ok=True)
    fresh = library.with_suffix(".new")
    command = ("gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(fresh), str(SOURCE))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise failed(f"gcc: {done.stderr.strip()[-300:]}", hint="apt-get install gcc libc6-dev")
    fresh.replace(library)


def library_of(base: Layout) -> Path:
    """Where the library is."""
    return base.opt / "lab/clock.so"


def file_of(layout: Layout) -> Path:
    """Where a node's clock is set."""
    return layout.root / "clock"


def environment(base: Layout, layout: Layout) -> dict[str, str]:
    """What a node's first process of Trivet is started with."""
    return {"LD_PRELOAD": str(library_of(base)), "LAB_CLOCK": str(file_of(layout))}


def set_ahead(layout: Layout, seconds: int) -> None:
    """Set a node's clock so many seconds ahead of the machine's; 0: right again."""
    file = file_of(layout)
    if not file.exists():
        file.write_bytes(struct.pack("=q", 0))
        file.chmod(0o644)
    with file.open("r+b") as written:  # in place: it is mapped
        written.write(struct.pack("=q", seconds))


def ahead(layout: Layout) -> int:
    """How many seconds a node's clock is ahead."""
    file = file_of(layout)
    (seconds,) = struct.unpack("=q", file.read_bytes()) if file.exists() else (0,)
    return int(seconds)
