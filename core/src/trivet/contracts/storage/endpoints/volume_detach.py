"""Let a holder let go of a volume. Not held, or held by another: nothing to do."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing, Ref
from trivet.contracts.storage.volume import VOLUME


class DetachRequest(Ref):
    """`holder` as it was given to attach."""

    holder: str


ENDPOINT = Endpoint(
    service="storage",
    op="volume.detach",
    request=DetachRequest,
    response=Nothing,
    policy=INTERNAL,
    summary="Detach a volume from its holder; answers once its graph is gone.",
    timeout_s=30.0,
    kind=VOLUME,
)
