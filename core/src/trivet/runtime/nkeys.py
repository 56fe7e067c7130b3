"""The bus identities' keys: ed25519 nkeys, their seeds in files that only the owner can read.

A seed proves who a service is; the server's configuration holds only public keys. The module
keeps the name of the standard it makes files for; the cryptography is the package of that name.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import nkeys

from trivet.contracts.errors import Fatal, code

BAD_KEY = code("bus.bad_key", 500, "A key file of the bus can't be used")


def make_key(path: Path) -> str:
    """Make a user key in `path` unless there is one; returns its public key (`U...`)."""
    if path.exists():
        return public_key(path)
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(seed + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # Of two who make it at once, the first one's stays.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return public_key(path)


def load_seed(path: Path) -> str:
    """The seed in `path`. Raises `Fatal` where it is missing, readable by others or no seed."""
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text().strip()
    except OSError as error:
        raise Fatal(BAD_KEY, f"{path}: {error.strerror}", hint="`trivet up` makes it") from error
    if mode & 0o077:
        raise Fatal(BAD_KEY, f"{path} has mode {mode:o}", hint=f"chmod 600 {path}")
    _public(text, path)
    return text


def public_key(path: Path) -> str:
    """The public key of the seed in `path`."""
    return _public(load_seed(path), path)


def _public(seed: str, path: Path) -> str:
    try:
        key = nkeys.from_seed(bytearray(seed.encode()))
        return bytes(key.public_key).decode()
    except nkeys.NkeysError as error:
        raise Fatal(
            BAD_KEY, f"{path} holds no seed", hint="remove it and make a new one"
        ) from error
