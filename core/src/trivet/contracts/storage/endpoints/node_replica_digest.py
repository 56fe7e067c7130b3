"""Have a node hash a part of its replica, and tell what it had hashed there at the last scrub.

With `store` the hashes are kept for the next scrub: they were found right. With `snapshot` it is
the volume as that node keeps it in the snapshot that is hashed.
"""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.replication import Extent


class DigestRequest(Model):
    """`store`: these hashes, of blocks from the extent's offset on, are the right ones."""

    volume: ResourceId
    extent: Extent
    block_bytes: int = Field(ge=512)
    store: tuple[str, ...] = ()
    snapshot: ResourceId | None = None


class DigestResponse(Model):
    """`hashes`: as they are now, '' for a block that is all zero; `stored`: as they were found
    right the last time, None where nothing is known."""

    hashes: tuple[str, ...] = ()
    stored: tuple[str | None, ...] = ()


ENDPOINT = Endpoint(
    service="storage",
    op="replica.digest",
    request=DigestRequest,
    response=DigestResponse,
    policy=INTERNAL,
    summary="Hash a part of this node's replica.",
    per_node=True,
    timeout_s=60.0,
)
