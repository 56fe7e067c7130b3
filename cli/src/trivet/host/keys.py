"""The keys by which services prove to the bus who they are, one nkey each.

A key is made once and kept: the bus server's configuration holds the public half. The seed is
readable only by the user whose process needs it.
"""

from __future__ import annotations

import os
from pathlib import Path

from trivet.runtime.nats_config import IDENTITIES
from trivet.runtime.nkeys import make_key


def ensure_keys(folder: Path, owners: dict[str, int]) -> dict[str, str]:
    """The public keys by identity, after making the seeds that are missing.

    `owners` gives the user id of an identity's file, where it is not root.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.chmod(0o711)
    public: dict[str, str] = {}
    for identity in IDENTITIES:
        path = folder / f"{identity}.nk"
        public[identity] = make_key(path)
        os.chown(path, owners.get(identity, os.geteuid()), -1)
    return public


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    write_whole(path, content, 0o600)


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is there whole or as it was before, also after a power cut."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
