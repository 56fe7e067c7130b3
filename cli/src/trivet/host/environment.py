"""The Python environment that services run in: a copy of the code, outside the checkout.

Services run as users who may not read the checkout, and must not change under a running node when
somebody edits it. The environment is made anew only where the sources differ from what it has.
"""

from __future__ import annotations

import os
from pathlib import Path

from trivet.host.checkout import members, run_uv
from trivet.host.layout import Layout

PYTHON = "/usr/bin/python3"


def installed_version(layout: Layout) -> str | None:
    """The source version that the environment was made from; None where it is not whole."""
    try:
        return _stamp(layout).read_text().strip()
    except FileNotFoundError:
        return None


def install(layout: Layout, folder: Path, version: str) -> None:
    """Bring the environment to the checkout's source `version`."""
    # Without its stamp it is of an install that was cut, which may have left a package half there;
    # installing over it would take that for whole.
    whole = installed_version(layout) is not None
    _stamp(layout).unlink(missing_ok=True)
    python = str(layout.venv / "bin/python")
    if not whole or not Path(python).exists():
        layout.opt.mkdir(mode=0o755, parents=True, exist_ok=True)
        run_uv(folder, "venv", "-q", "--clear", "--python", PYTHON, str(layout.venv))
    install = ("pip", "install", "-q", "--python", python, "--compile-bytecode")
    lock = str(folder / "requirements-node.lock")
    run_uv(folder, *install, "--require-hashes", "-r", lock)
    run_uv(folder, *install, "--no-deps", "--reinstall", *map(str, members(folder)))
    # After a power cut the stamp must not stand for files whose content never reached the disk.
    os.sync()
    _stamp(layout).write_text(version + "\n")


def _stamp(layout: Layout) -> Path:
    return layout.venv / ".trivet-version"
