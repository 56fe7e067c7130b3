"""Attach a volume to a holder on a node, under a new epoch.

Repeated by the same holder on the same node while attached there, it answers the same; a new
epoch is made when the attachment is gone or broken, or was another run's of the holder. Held by
another, it is refused.
"""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Ref
from trivet.contracts.model import NodeName
from trivet.contracts.storage.volume import VOLUME, Attachment


class AttachRequest(Ref):
    """`holder` is `<kind>/<id>` of who will write; `node` is where it runs. `run` is the run of
    the holder that is about to begin: what an earlier one has on the way must be over by then
    (None: the holder runs already, whichever run that is)."""

    holder: str
    node: NodeName
    run: int | None = None


ENDPOINT = Endpoint(
    service="storage",
    op="volume.attach",
    request=AttachRequest,
    response=Attachment,
    policy=INTERNAL,
    summary="Attach a volume to a holder on a node; answers once its socket is there.",
    timeout_s=30.0,
    kind=VOLUME,
)
