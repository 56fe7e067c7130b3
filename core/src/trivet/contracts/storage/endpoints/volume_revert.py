"""Bring a volume that nobody holds back to a snapshot of it; its size stays as it is now."""

from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name
from trivet.contracts.storage.volume import VOLUME


class RevertRequest(Ref):
    """`snapshot`: which one (same project); None: the newest one of the volume."""

    snapshot: Name | None = None


ENDPOINT = action(
    VOLUME,
    "revert",
    "Bring a volume that nobody holds back to a snapshot: what was written since is lost.",
    request=RevertRequest,
)
