"""Who may hold a volume, and when a new epoch begins.

One holder at a time. The same holder on the same node keeps its epoch: a graph that broke is made
again behind the same socket, for a guest that was paused by the failure can only go on there.
Anything else (another node, an attachment that is ending) begins a new epoch, whose servers shut
the former one out. An epoch is given out by compare-and-swap
before anything is served under it, and never twice.

A volume that storage holds itself, to repair it, is let go of in order as soon as somebody asks
for it; who can't wait any more takes it all the same, as from a holder that died. So is what
another run of the same holder had: a guest that died may have writes on the way, which the next
one must not see come and go. And what was attached for a run that has not begun yet, and broke
(its hosts lost power, and what was not flushed), begins anew.
"""

from __future__ import annotations

from trivet.contracts.errors import DELETING, Refused, Retry
from trivet.contracts.storage.codes import ATTACHED, NOT_READY
from trivet.contracts.storage.engine import AttachedVolume
from trivet.contracts.storage.volume import Attachment, Volume
from trivet.storage.domain.replication import REPAIR, after_graph, held_for_repair, with_all
from trivet.storage.domain.volume_status import in_sync, with_attachment

SOON_S = 0.5


def attach(
    volume: Volume,
    holder: str,
    node: str,
    broken_epoch: int | None,
    *,
    run: int | None = None,
    impatient: bool = False,
) -> Volume:
    """The volume held by `holder` on `node`; the same volume where it is so already. One that is
    held for repair, or was by another `run` of the holder there, is let go of at first: it is then
    to be asked again (`impatient`: it is taken).

    `broken_epoch` is that of an attachment that was seen gone or broken on its node. Raises
    `Refused(ATTACHED)`, `Refused(DELETING)`, `Retry(NOT_READY)`.
    """
    name, held = volume.meta.name, volume.status.attachment
    if volume.meta.deleting_at is not None:
        raise Refused(DELETING, f"volume {name} is being deleted")
    if held is not None and held.holder != holder and not (impatient and held_for_repair(held)):
        if held_for_repair(held):
            return detach(volume, REPAIR)
        if held.detaching:
            raise Retry(ATTACHED, f"{held.holder} lets go of {name}", retry_after_s=SOON_S)
        raise Refused(ATTACHED, f"volume {name} is held by {held.holder} on {held.node}")
    if not in_sync(volume):
        raise Retry(
            NOT_READY, f"volume {name} has no replica that is in sync", retry_after_s=SOON_S
        )
    if volume.status.reverting is not None:
        detail = f"volume {name} goes back to a snapshot"
        raise Retry(NOT_READY, detail, retry_after_s=SOON_S)
    if held is not None and held.node == node and held.holder == holder:
        if run is not None and held.run != run:
            if not impatient:
                return detach(volume, holder)
        elif not held.detaching:
            broke = held.epoch == broken_epoch
            # A holder that is about to begin has read nothing yet that must be found again.
            if run is None or not (broke or _breaks(held)):
                if not broke:
                    return volume
                return with_attachment(volume, held.model_copy(update={"socket": None}))
    epoch = volume.status.epoch + 1
    made = Attachment(holder=holder, node=node, epoch=epoch, run=run)
    return with_attachment(volume.with_status(epoch=epoch), made)


def _breaks(held: Attachment) -> bool:
    """Whether its graph was there, and is to be made again."""
    return held.socket is None and held.export is not None


def detach(volume: Volume, holder: str) -> Volume:
    """The volume with its attachment ending; the same volume where `holder` holds nothing."""
    held = volume.status.attachment
    if held is None or held.holder != holder:
        return volume
    return with_attachment(volume, held.model_copy(update={"detaching": True}))


def attached(volume: Volume, there: AttachedVolume) -> Volume:
    """The volume with the attachment of that epoch made; unchanged if a newer one began."""
    held = volume.status.attachment
    if held is None or held.epoch != there.epoch or held.detaching:
        return volume
    if there.slots and held.number != there.number:
        return volume
    seen = {"socket": there.socket, "export": there.export, "size_bytes": there.size_bytes}
    return with_attachment(volume, held.model_copy(update=seen))


def caught_up(volume: Volume, epoch: int) -> Volume:
    """The volume with an epoch above `epoch`, which a replica knows of and the store does not;
    whoever holds it goes on in a new one."""
    held = volume.status.attachment
    if held is None:
        return volume.with_status(epoch=max(volume.status.epoch, epoch))
    if held.epoch > epoch:
        return volume
    following = max(volume.status.epoch, epoch) + 1
    again = held.model_copy(update={"epoch": following, "socket": None, "export": None})
    return with_attachment(volume.with_status(epoch=following), again)


def detached(volume: Volume, node: str) -> Volume:
    """The volume free, if its attachment on `node` was ending."""
    held = volume.status.attachment
    if held is None or held.node != node or not held.detaching:
        return volume
    return with_attachment(with_all(volume, after_graph), None)
