"""What the service's bootstrap made, for the handlers of its operations."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.storage.disk import Disk
from trivet.contracts.storage.engine import VolumeEngine
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.storage.disk_claims import DiskClaims
from trivet.storage.ledgers import Ledgers
from trivet.storage.node.pools import PoolAgent
from trivet.storage.node.replicated import Replicated
from trivet.storage.node.serving import Serving


@dataclass(frozen=True)
class Parts:
    """The parts of a storage service."""

    runtime: Runtime
    volumes: Collection[Volume]
    pools: Collection[Pool]
    disks: Collection[Disk]
    ledgers: Ledgers
    engine: VolumeEngine
    serving: Serving
    disk_claims: DiskClaims
    pool_agent: PoolAgent
    snapshots: Collection[Snapshot]
    replicated: Replicated | None
