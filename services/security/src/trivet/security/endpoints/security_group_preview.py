"""Tells what a change of a group's rules would do. Nothing is stored, no packet is touched."""

from __future__ import annotations

import asyncio

from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import TrivetError
from trivet.contracts.security.endpoints.node_connections import ENDPOINT as CONNECTIONS
from trivet.contracts.security.endpoints.node_connections import ConnectionsResponse
from trivet.contracts.security.endpoints.security_group_preview import (
    ENDPOINT,
    ChangedReach,
    CutConnection,
    PreviewRequest,
    PreviewResponse,
)
from trivet.contracts.security.evaluate import Decision, Opening
from trivet.contracts.security.firewall import Connection
from trivet.contracts.security.group import SECURITY_GROUP, Rule, SecurityGroupSpec
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.security.domain.preview import Change, judged, reach
from trivet.security.endpoints.security_groups import check_names
from trivet.security.parts import Parts
from trivet.security.port_list import ports_of
from trivet.security.preview import Scene, scene

TOLD_MAX = 1000
NODE_TIMEOUT_S = 10.0


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def preview(request: PreviewRequest, call: Call) -> PreviewResponse:
        key = parts.groups.kind.key(request.project, request.name)
        group = parts.groups.by_key(key) or await parts.groups.fresh(key)
        if group is None:
            raise not_found(SECURITY_GROUP, request.name, request.project)
        after = group.with_spec(SecurityGroupSpec(rules=request.rules))
        await check_names(parts, after)
        ports = await ports_of(parts.runtime.client, request.project)
        there = scene(parts, ports, group, after)
        found = await asyncio.to_thread(
            reach, list(there.stands.values()), there.neighbours, there.lists, there.lists
        )
        answers = await asyncio.gather(*(_ask(parts, node) for node in there.nodes))
        silent = [n for n, a in zip(there.nodes, answers, strict=True) if a is None or not a.told]
        open_now = [c for answer in answers if answer for c in answer.connections]
        changed = [cut for c in open_now if (cut := _cut(there, c)) is not None]
        return PreviewResponse(
            connections=tuple(changed[:TOLD_MAX]),
            reach=tuple(map(_told, found.changes[:TOLD_MAX])),
            complete=found.complete and max(len(changed), len(found.changes)) <= TOLD_MAX,
            silent=tuple(silent),
        )

    service.handle(ENDPOINT, preview)


async def _ask(parts: Parts, node: str) -> ConnectionsResponse | None:
    client = parts.runtime.client
    try:
        return await client.call(CONNECTIONS, Nothing(), node=node, timeout_s=NODE_TIMEOUT_S)
    except TrivetError:
        return None


def _cut(there: Scene, connection: Connection) -> CutConnection | None:
    """The connection, if a new one like it would be treated otherwise."""
    stand = there.stands.get(connection.at)
    if stand is None:
        return None
    opening = Opening(connection.direction, connection.protocol, connection.remote, connection.port)
    before, after = judged(stand, opening, there.lists, there.lists)
    if before.action is after.action:
        return None
    return CutConnection(
        port=stand.name,
        direction=connection.direction,
        protocol=connection.protocol,
        remote=connection.remote,
        port_number=connection.port,
        before=before.action,
        after=after.action,
        by=_rule(after),
    )


def _told(change: Change) -> ChangedReach:
    return ChangedReach(
        port=change.stand.name,
        direction=change.direction,
        protocol=change.protocol,
        remote=change.remote,
        ports=tuple(str(a) if a == b else f"{a}-{b}" for a, b in change.ports),
        before=change.before.action,
        after=change.after.action,
        by=_rule(change.after),
    )


def _rule(decision: Decision) -> Rule | None:
    return decision.by.rule if decision.by else None
