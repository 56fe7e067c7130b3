"""What a guest says of itself, and does for us, through the agent that runs in it.

The agent is the guest's own program: it may be missing, gone, slow or lying. Nothing depends on
it but what is only for people to see, and the quiet moment that a snapshot would like to have.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import Field

from trivet.contracts.model import Model, ResourceId

FREEZE_S = 10.0
"""How long file systems stay frozen at most, if nobody says otherwise."""

FREEZE_MAX_S = 60.0


class GuestReport(Model):
    """What the agent says: the guest's name for itself, and its addresses but those that lead
    nowhere else (loopback, link-local)."""

    hostname: str | None = Field(default=None, max_length=255)
    addresses: tuple[str, ...] = Field(default=(), max_length=64)


class AgentStatus(GuestReport):
    """Whether an agent answers in the guest, and what it said last."""

    connected: bool = False


@runtime_checkable
class GuestAgent(Protocol):
    """Optional, for hypervisors that can talk to an agent in the guest.

    All of it raises `Refused(NOT_FOUND)` for an unknown domain, and but for `report` `Retry`
    where no agent answers in time.
    """

    async def report(self, id_: ResourceId) -> GuestReport | None:
        """What the guest says; None where no agent is connected."""
        ...

    async def freeze(self, id_: ResourceId, bound_s: float) -> int:
        """Write out and freeze the guest's file systems; returns how many. They are thawed after
        `bound_s` at the latest, whatever becomes of this process meanwhile."""
        ...

    async def thaw(self, id_: ResourceId) -> int:
        """Thaw them; returns how many were still frozen. 0 after a freeze means that the bound
        had passed: what was done under it was not all done in a quiet moment."""
        ...

    async def set_time(self, id_: ResourceId) -> None:
        """Set the guest's clock to the host's, after time stood still in it."""
        ...
