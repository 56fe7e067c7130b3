"""Puts the guest agent into the tiny guest: its program, and the libraries that it is linked to.

The program is the distribution's own, from its package. Its libraries are this machine's: QEMU,
which every node has, needs the same ones.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

PACKAGE = "qemu-guest-agent"
PROGRAM = "usr/sbin/qemu-ga"
_LINKED = re.compile(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)$")
_MISSING = re.compile(r"(\S+) => not found")

Run = Callable[..., bytes]
"""Runs a command and returns its output, as `tiny_image` does."""


def add(root: Path, work: Path, run: Run) -> None:
    """Add the agent to the guest's files at `root`; `work` is a folder for what it takes."""
    folder = work / "agent"
    folder.mkdir()
    run("apt-get", "-qq", "download", PACKAGE, cwd=folder)
    (archive,) = folder.glob("*.deb")
    run("dpkg-deb", "-x", str(archive), str(folder / "tree"))
    program = next(p for p in (folder / "tree").rglob("qemu-ga") if p.is_file())
    _copy(program, root / PROGRAM)
    for library in libraries(run("ldd", str(program)).decode()):
        _copy(library, root / str(library).lstrip("/"))


def libraries(told: str) -> tuple[Path, ...]:
    """The files in what `ldd` said. Raises `LookupError` naming one that is not installed."""
    if missing := _MISSING.search(told):
        raise LookupError(f"{missing[1]} is not installed, which {PACKAGE} needs")
    found = (_LINKED.search(line) for line in told.splitlines())
    return tuple(Path(match[1]) for match in found if match)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
