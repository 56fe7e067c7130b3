"""The keys by which services prove to the bus who they are, one nkey each.

A key is made once and kept: the bus server's configuration holds the public half. The seed is
readable only by the user whose process needs it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import nkeys

IDENTITIES = ("compute", "storage", "network", "security", "gateway", "admin")


def ensure_keys(folder: Path, owners: dict[str, int]) -> dict[str, str]:
    """The public keys by identity, after making the seeds that are missing.

    `owners` gives the user id of an identity's file, where it is not root.
    """
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    folder.chmod(0o711)
    public: dict[str, str] = {}
    for identity in IDENTITIES:
        path = folder / f"{identity}.nk"
        if not path.exists():
            seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
            write_secret(path, bytes(seed))
        os.chown(path, owners.get(identity, os.geteuid()), -1)
        public[identity] = public_key(path.read_bytes())
    return public


def public_key(seed: bytes) -> str:
    """The public half of a seed."""
    key: bytes = nkeys.from_seed(bytearray(seed.strip())).public_key
    return key.decode()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
