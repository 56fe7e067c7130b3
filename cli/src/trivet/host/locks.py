"""The lock files: exactly which distributions an environment holds, by hash, and from nowhere.

uv's own lock names the registries it was made with, so it stays a private cache. What is
committed is exported from it: names, versions, hashes, and a digest of the dependencies that it
was made for, by which a test sees without any registry that it is current.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

from trivet.host.checkout import members, run_uv

DIGEST_LINE = "# dependencies: sha256:"
EXPORTS = {
    "requirements.lock": ("--all-extras", "--all-groups"),
    "requirements-node.lock": ("--no-default-groups", "--extra", "libvirt"),
}


def write(folder: Path) -> None:
    """Resolve what changed (keeping what is pinned) and write the lock files."""
    run_uv(folder, "lock", "-q", "--project", str(folder), "--python", "/usr/bin/python3")
    for name, which in EXPORTS.items():
        run_uv(
            folder,
            *("export", "-q", "--frozen", "--project", str(folder), "--all-packages"),
            *("--no-emit-workspace", "--no-header", "--no-annotate", *which),
            *("-o", str(folder / name)),
        )
        path = folder / name
        path.write_text(f"{DIGEST_LINE}{dependencies_digest(folder)}\n{path.read_text()}")


def dependencies_digest(folder: Path) -> str:
    """A digest of all dependencies that the workspace declares."""
    declared = {
        str(path.relative_to(folder)): _declared(tomllib.loads(path.read_text()))
        for path in (folder / "pyproject.toml", *(m / "pyproject.toml" for m in members(folder)))
    }
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()


def recorded_digest(lock: str) -> str | None:
    """The digest that a lock file was made for."""
    first = lock.partition("\n")[0]
    return first.removeprefix(DIGEST_LINE) if first.startswith(DIGEST_LINE) else None


def _declared(project: dict[str, Any]) -> Any:
    of_project = project.get("project", {})
    return [
        sorted(of_project.get("dependencies", [])),
        of_project.get("optional-dependencies", {}),
        project.get("dependency-groups", {}),
        of_project.get("requires-python"),
    ]
