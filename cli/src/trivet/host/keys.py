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
