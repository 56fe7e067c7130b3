"""Quotas: how much a project may have at most, and the ledger in which that is claimed.

What is limited is claimed before it is made: by compare-and-swap on the project's ledger, under
the id of what is to be, so that asking twice is asking once. Who deletes says nothing: the
`deleted` event gives the claim back, and a look from time to time mends what was missed, either
way. A project without limits has no ledger, and claiming there costs no write.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import Field

from trivet.contracts.model import Model, ResourceId

Limit = Annotated[int, Field(ge=0, le=10_000_000)]


class Quotas(Model):
    """At most so much of each; None: as much as there is. Memory is in MiB, space in GiB (as
    asked for, copies not counted)."""

    vms: Limit | None = None
    vcpus: Limit | None = None
    memory_mib: Limit | None = None
    volumes: Limit | None = None
    volumes_gib: Limit | None = None
    networks: Limit | None = None
    ports: Limit | None = None
    security_groups: Limit | None = None

    @property
    def limits(self) -> dict[str, int]:
        """Those that are set."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


class QuotaClaim(Model):
    """What one resource takes, for which generation of it at the latest, and since when (UTC)."""

    amounts: dict[str, int]
    at: datetime
    generation: int = 1


class Ledger(Model):
    """All claims of a project, by the resource's id."""

    claims: Mapping[ResourceId, QuotaClaim] = {}
