"""Tells the packets that rules with `log` decided on."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.security.endpoints.security_group_log import ENDPOINT, GroupLog
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts
from trivet.security.seen import seen_everywhere

ENTRIES_MAX = 1000


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def log(request: Ref, call: Call) -> GroupLog:
        seen = await seen_everywhere(parts, request)
        entries = sorted((e for a in seen.answers for e in a.entries), key=lambda e: e.at)
        return GroupLog(entries=tuple(entries[-ENTRIES_MAX:]), silent=seen.silent)

    service.handle(ENDPOINT, log)
