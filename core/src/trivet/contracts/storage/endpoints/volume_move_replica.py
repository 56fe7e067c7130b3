"""Move a replica of a volume to another node, while it is used or not.

The new one is made and brought in sync first; then the old one goes. Asked again, nothing changes.
"""

from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import NodeName
from trivet.contracts.storage.volume import VOLUME


class MoveReplicaRequest(Ref):
    """`source`: the node whose replica goes; `target`: the node that gets one."""

    source: NodeName
    target: NodeName


ENDPOINT = action(
    VOLUME,
    "move-replica",
    "Move a replica of a volume to another node.",
    request=MoveReplicaRequest,
)
