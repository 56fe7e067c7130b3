"""Ask a node whether a volume is attached there, and whether the graph is healthy."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import AttachedVolume


class CheckRequest(Model):
    """Which volume. `mended`: answer when no member of its graph has failed any more, or after a
    few seconds; asked for where somebody waits to write."""

    volume: ResourceId
    mended: bool = False


class CheckResponse(Model):
    """What is attached; None: nothing of that volume. `starved`: why writes to its replica
    here find no space now ('': they do); `waits`: why writes are not acknowledged now."""

    attached: AttachedVolume | None = None
    starved: str = ""
    waits: str = ""


ENDPOINT = Endpoint(
    service="storage",
    op="attachment.check",
    request=CheckRequest,
    response=CheckResponse,
    policy=INTERNAL,
    summary="Tell whether a volume is attached on this node, and healthy.",
    per_node=True,
    changes=False,
)
