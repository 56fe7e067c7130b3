"""What a new guest is told about itself, in the shape that cloud-init calls NoCloud.

It is a small read-only disk with the label CIDATA, made before a start from what the VM asks for
then. It can hold secrets: it is in no record of a domain, which carries only its digest, and in
no log.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, runtime_checkable

from trivet.contracts.model import Model, ResourceId

LABEL = "CIDATA"
USER_DATA_BYTES = 64 * 1024


class Seed(Model):
    """The three files, each as its text."""

    user_data: str
    meta_data: str
    network_config: str

    @property
    def files(self) -> dict[str, bytes]:
        """The files by the names that cloud-init looks for."""
        return {
            "user-data": self.user_data.encode(),
            "meta-data": self.meta_data.encode(),
            "network-config": self.network_config.encode(),
        }

    @property
    def digest(self) -> str:
        """Tells one seed from another (SHA-256, hex)."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Seed {self.digest[:12]}>"

    __str__ = __repr__


@runtime_checkable
class SeedDisks(Protocol):
    """Optional, for hypervisors that can give a domain such a disk."""

    async def put_seed(self, id_: ResourceId, seed: Seed | None) -> None:
        """Keep `seed` for the next start of a domain whose `seed` names its digest; it goes with
        the domain. None: there is none any more. A guest that runs keeps the one that it has."""
        ...
