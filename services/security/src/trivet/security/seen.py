"""What a group's rules did on all nodes: asked of those where ports stand behind it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import TrivetError
from trivet.contracts.security.endpoints.node_firewall_seen import (
    ENDPOINT,
    SeenRequest,
    SeenResponse,
)
from trivet.contracts.security.group import SECURITY_GROUP, SecurityGroup
from trivet.runtime.crud import not_found
from trivet.security.parts import Parts
from trivet.security.port_list import ports_of

ASKED_AT_ONCE = 32
NODE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Seen:
    """The group, the answers of nodes, and the nodes that gave none."""

    group: SecurityGroup
    answers: tuple[SeenResponse, ...]
    silent: tuple[str, ...]


async def seen_everywhere(parts: Parts, request: Ref) -> Seen:
    """Ask all nodes that have ports behind the group."""
    key = parts.groups.kind.key(request.project, request.name)
    group = parts.groups.by_key(key) or await parts.groups.fresh(key)
    if group is None:
        raise not_found(SECURITY_GROUP, request.name, request.project)
    ports = await ports_of(parts.runtime.client, request.project)
    nodes = sorted(
        {p.spec.node for p in ports if p.spec.node and request.name in p.spec.security_groups}
    )
    bound = asyncio.Semaphore(ASKED_AT_ONCE)
    asked = SeenRequest(group=group.meta.id)

    async def ask(node: str) -> SeenResponse | None:
        async with bound:
            try:
                return await parts.runtime.client.call(
                    ENDPOINT, asked, node=node, timeout_s=NODE_TIMEOUT_S
                )
            except TrivetError:
                return None

    answers = await asyncio.gather(*(ask(node) for node in nodes))
    silent = tuple(n for n, answer in zip(nodes, answers, strict=True) if answer is None)
    return Seen(group, tuple(a for a in answers if a is not None), silent)
