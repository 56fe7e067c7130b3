"""Attach a volume: the wish is recorded under a new epoch, then its node's agent is waited for."""

from __future__ import annotations

from functools import partial

from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.endpoints.node_attachment_check import ENDPOINT as CHECK
from trivet.contracts.storage.endpoints.node_attachment_check import CheckRequest
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT, AttachRequest
from trivet.contracts.storage.volume import VOLUME, Attachment, Volume
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.attachment import SOON_S
from trivet.storage.domain.attachment import attach as held_by
from trivet.storage.parts import Parts

ANSWER_BEFORE_S = 1.0
LET_GO_S = 4.0
"""How long a graph may take to end in order, one of whose members hangs."""


def wire(service: Service, parts: Parts) -> None:
    """Answer `volume.attach`."""
    volumes = parts.volumes

    async def attach(request: AttachRequest, call: Call) -> Attachment:
        key = VOLUME.key(request.project, request.name)
        # The copy will do: the wish is recorded by compare-and-swap.
        volume = volumes.by_key(key) or await volumes.fresh(key)
        if volume is None:
            raise not_found(VOLUME, request.name, request.project)
        broken, starved = await _as_it_is(parts, volume, request)
        mine = await _hold(parts, request, broken)
        wait_s = (call.remaining_s or ENDPOINT.timeout_s) - ANSWER_BEFORE_S
        seen = await volumes.wait_for(key, lambda v: v is None or _is_there(v, mine), wait_s)
        if seen is None or not _is_there(seen, mine) or seen.status.attachment is None:
            detail = f"volume {request.name} is not attached on {request.node} yet"
            raise Retry(NOT_READY, detail, retry_after_s=1.0)
        return seen.status.attachment.model_copy(update={"starved": starved})

    service.handle(ENDPOINT, attach)


async def _hold(parts: Parts, request: AttachRequest, broken: int | None) -> Attachment:
    """The attachment of whoever asks, on record. Storage itself, which holds a volume to repair
    it, and a former run of the holder are waited for a moment to end in order, then it is taken."""
    key, holder = VOLUME.key(request.project, request.name), ""
    for impatient in (False, True):
        hold = partial(
            held_by,
            holder=request.holder,
            node=request.node,
            broken_epoch=broken,
            run=request.run,
            impatient=impatient,
        )
        volume = await parts.volumes.mutate(key, hold)
        held = volume.status.attachment if volume is not None else None
        if held is None:
            raise not_found(VOLUME, request.name, request.project)
        if held.holder == request.holder and request.run in (None, held.run):
            return held
        holder = held.holder
        await parts.volumes.wait_for(key, partial(_is_over, former=held), LET_GO_S)
    raise Retry(NOT_READY, f"{holder} holds volume {request.name}", retry_after_s=SOON_S)


def _is_over(volume: Volume | None, former: Attachment) -> bool:
    held = volume.status.attachment if volume is not None else None
    return held is None or (held.epoch, held.holder) != (former.epoch, former.holder)


def _is_there(volume: Volume, mine: Attachment) -> bool:
    """Whether this very attachment is made: a later one may be somebody else's."""
    held = volume.status.attachment
    return (
        held is not None
        and (held.epoch, held.holder, held.node) == (mine.epoch, mine.holder, mine.node)
        and held.socket is not None
    )


async def _as_it_is(parts: Parts, volume: Volume, request: AttachRequest) -> tuple[int | None, str]:
    """The epoch of the present attachment, if its node says that it is gone or broken, and why
    writes find no space there."""
    held = volume.status.attachment
    if held is None or held.socket is None or held.node != request.node:
        return None, ""
    asked = CheckRequest(volume=ResourceId(volume.meta.id), mended=True)
    try:
        answer = await parts.runtime.client.call(CHECK, asked, node=held.node)
    except TrivetError:
        # Unknown is not broken: the holder gets what is on record, and finds out.
        return None, ""
    if answer.waits:
        detail = f"volume {request.name}: {answer.waits}"
        raise Retry(NOT_READY, detail, retry_after_s=1.0)
    there = answer.attached
    whole = there is not None and there.healthy and there.epoch == held.epoch
    return None if whole else held.epoch, answer.starved
