"""The checkout that this command runs from, and what identifies the code in it.

The `trivet` command of a checkout runs in the checkout's own `.venv`; the folder above it is the
checkout. An installed command (in a container, say) has none, and then there is nothing to set up
from.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trivet.host.failure import failed

MEMBERS = ("core", "plugins", "cli", "services/*")


def checkout() -> Path:
    """The checkout's folder. Raises `Fatal` for an installed command."""
    folder = Path(sys.prefix).parent
    if not (folder / "requirements-node.lock").is_file():
        raise failed("this command was not started from a checkout", hint="run ./trivet there")
    return folder


def members(folder: Path) -> list[Path]:
    """The folders of the workspace's distributions."""
    found = [path for pattern in MEMBERS for path in sorted(folder.glob(pattern))]
    return [path for path in found if (path / "pyproject.toml").is_file()]


def source_version(folder: Path) -> str:
    """A digest of everything that an installation is made from."""
    digest = hashlib.sha256()
    for path in _sources(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _sources(folder: Path) -> Iterator[Path]:
    yield folder / "requirements-node.lock"
    for member in members(folder):
        yield member / "pyproject.toml"
        for path in sorted((member / "src").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def run_uv(folder: Path, *arguments: str) -> None:
    """Run the checkout's uv, told what pip's configuration says. Raises `Fatal`."""
    done = subprocess.run(
        (str(folder / "trivet"), "uv", *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-600:]
        raise failed(f"uv {arguments[0]} failed: {said}", hint="mend it and run this again")
