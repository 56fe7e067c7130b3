"""What a project may still claim, and what its ledger has to be mended to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.errors import FieldError, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Amounts
from trivet.contracts.security.codes import QUOTA
from trivet.contracts.security.quota import Ledger, QuotaClaim, Quotas

GRACE = timedelta(seconds=60)
"""A claim younger than this may be of something that is still being made."""


def usage(ledger: Ledger) -> dict[str, int]:
    """How much of each is claimed."""
    sums: Counter[str] = Counter()
    for claim in ledger.claims.values():
        sums.update(claim.amounts)
    return {name: sums[name] for name in sorted(sums)}


def claimed(
    ledger: Ledger,
    quotas: Quotas,
    project: str,
    resource: ResourceId,
    claim: QuotaClaim,
) -> Ledger:
    """The ledger with the claim added to an earlier one of the resource.

    Raises `Refused(QUOTA)` where that takes more than there is, unless it takes no more than
    before: who is over a limit that was lowered may always take less.
    """
    old = ledger.claims.get(resource)
    before = old.amounts if old else {}
    amounts = {name: max(n, before.get(name, 0)) for name, n in {**before, **claim.amounts}.items()}
    used = usage(without(ledger, resource))
    errors = tuple(
        FieldError(
            where=name,
            message=f"limit {limit}, used {used.get(name, 0)}, asked {amounts[name]}",
            accepted=f"at most {max(0, limit - used.get(name, 0))}",
        )
        for name, limit in sorted(quotas.limits.items())
        if name in amounts
        and used.get(name, 0) + amounts[name] > limit
        and amounts[name] > before.get(name, 0)
    )
    if errors:
        raise Refused(
            QUOTA,
            f"project {project} has no more {errors[0].where}: {errors[0].message}",
            hint="delete something there, or ask for a higher quota",
            errors=errors,
        )
    latest = max(claim.generation, old.generation if old else 0)
    made = QuotaClaim(amounts=amounts, at=claim.at, generation=latest)
    return Ledger(claims={**ledger.claims, resource: made})


def stored(ledger: Ledger, resource: ResourceId, claim: QuotaClaim) -> Ledger:
    """The ledger once the claim's generation is what is stored: it takes no more than that,
    unless who asked for a later generation will say so."""
    old = ledger.claims.get(resource)
    if old is None or old.generation > claim.generation:
        return ledger
    return Ledger(claims={**ledger.claims, resource: claim})


def without(ledger: Ledger, resource: ResourceId) -> Ledger:
    """The ledger without the claim of a resource."""
    return Ledger(claims={k: v for k, v in ledger.claims.items() if k != resource})


def mended(ledger: Ledger, there: Mapping[ResourceId, Amounts], now: datetime) -> Ledger:
    """The ledger after a look at what there really is: orphans go, what is missing comes, and
    amounts are what they are. Claims younger than `GRACE` are left alone."""
    claims: dict[ResourceId, QuotaClaim] = {}
    for resource, claim in ledger.claims.items():
        if elapsed_s(claim.at, now) < GRACE.total_seconds():
            claims[resource] = claim
    for resource, amounts in there.items():
        known = ledger.claims.get(resource)
        if known is not None and known.amounts == dict(amounts):
            claims[resource] = known
        elif resource not in claims:
            claims[resource] = QuotaClaim(amounts=dict(amounts), at=now)
    return Ledger(claims=dict(sorted(claims.items())))
