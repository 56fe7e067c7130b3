"""Tells how often each rule of a group decided."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.security.endpoints.security_group_hits import (
    ENDPOINT,
    GroupHits,
    RuleCount,
)
from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.group import Rule, SecurityGroup
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts
from trivet.security.seen import seen_everywhere


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def hits(request: Ref, call: Call) -> GroupHits:
        seen = await seen_everywhere(parts, request)
        sums: dict[str, tuple[int, int]] = {}
        for answer in seen.answers:
            for found in answer.hits:
                packets, size = sums.get(found.rule, (0, 0))
                sums[found.rule] = packets + found.packets, size + found.bytes
        rules = (_count(seen.group, rule, sums) for rule in seen.group.spec.rules)
        return GroupHits(rules=tuple(rules), silent=seen.silent)

    service.handle(ENDPOINT, hits)


def _count(group: SecurityGroup, rule: Rule, sums: dict[str, tuple[int, int]]) -> RuleCount:
    named = NamedRule(group.meta.id, group.meta.project or "", group.meta.name, rule)
    found = sums.get(named.key)
    if found is None:
        return RuleCount(rule=rule, packets=None, bytes=None)
    return RuleCount(rule=rule, packets=found[0], bytes=found[1])
