"""What is not as it was made on a node: changed behind Trivet's back, and how that is noticed.

The drivers' lists (`state`, `legs`, `served`) say what is there; `drift` looks closer, at what
those lists don't show. Whatever either finds, `ensure` of the same thing mends.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.model import Model, ResourceId


class Drift(Model):
    """`concerns`: the id of a network or of a port; `what` is wrong, as part of a sentence."""

    concerns: ResourceId
    what: str


@runtime_checkable
class Watches(Protocol):
    """A driver that is told when something of its on the node changes (optional)."""

    async def changed(self) -> None:
        """Return when something may have changed since the last call returned, by whomever;
        what changed before the first call is not told."""
        ...
