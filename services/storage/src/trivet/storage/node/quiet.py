"""A quiet moment for a cut: the guests that hold its volumes freeze their file systems around it.

Compute freezes and thaws; whoever is killed in between, the freeze ends by its own bound. So a cut
counts as quiet only if each guest says afterwards that it was still frozen then. A guest without an
agent, or one that does not answer, is cut as a power cut would: its file systems are made for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from trivet.contracts.compute.endpoints.node_vm_freeze import ENDPOINT as FREEZE
from trivet.contracts.compute.endpoints.node_vm_freeze import FreezeRequest
from trivet.contracts.compute.endpoints.node_vm_thaw import ENDPOINT as THAW
from trivet.contracts.compute.endpoints.node_vm_thaw import ThawRequest
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.snapshot import Consistency
from trivet.contracts.storage.volume import Volume
from trivet.runtime.call import Client

log = logging.getLogger(__name__)

Cut = TypeVar("Cut")

VM_HOLDER = "vm/"
FREEZE_BOUND_S = 20.0
ASK_S = 20.0


def holders(volumes: Iterable[Volume]) -> frozenset[tuple[str, str]]:
    """The VMs (by id) that hold these volumes, and where each runs."""
    held = [v.status.attachment for v in volumes if v.status.attachment is not None]
    return frozenset(
        (a.holder.removeprefix(VM_HOLDER), a.node) for a in held if a.holder.startswith(VM_HOLDER)
    )


async def quietly(
    client: Client, volumes: Iterable[Volume], cut: Callable[[], Awaitable[Cut]]
) -> tuple[Cut, Consistency]:
    """What `cut` answers, done while the guests that hold `volumes` are quiet if they can be, and
    how consistent that made it."""
    found = tuple(volumes)
    guests = sorted(holders(found))
    if not guests:
        held = any(v.status.attachment is not None for v in found)
        return await cut(), Consistency.CRASH if held else Consistency.OFFLINE
    frozen = await asyncio.gather(*(_freeze(client, *guest) for guest in guests))
    try:
        made = await cut()
    finally:
        asked = [guest for guest, did in zip(guests, frozen, strict=True) if did]
        thawed = await asyncio.gather(*(_thaw(client, *guest) for guest in asked))
    quiet = all(frozen) and all(thawed)
    return made, Consistency.AGENT if quiet else Consistency.CRASH


async def _freeze(client: Client, vm: str, node: str) -> bool:
    request = FreezeRequest(id=ResourceId(vm), bound_s=FREEZE_BOUND_S)
    try:
        answer = await client.call(FREEZE, request, node=node, timeout_s=ASK_S)
    except TrivetError as error:
        log.info("the guest %s is cut as it is: %s", vm, error.detail)
        return False
    return answer.filesystems > 0


async def _thaw(client: Client, vm: str, node: str) -> bool:
    """Whether it was still frozen."""
    try:
        answer = await client.call(THAW, ThawRequest(id=ResourceId(vm)), node=node, timeout_s=ASK_S)
    except TrivetError as error:
        log.warning("the guest %s thaws by itself soon: %s", vm, error.detail)
        return False
    return answer.filesystems > 0
