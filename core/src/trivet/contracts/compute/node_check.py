"""Node checks: what a node can say of its own health, beside what its services keep.

Each check looks at one thing (space, a certificate, the clock) and says how it is in words; the
node's agent keeps the answers as conditions of the Node, from which alarms follow, and
`trivet doctor` asks the same checks without any service. All usable checks serve.
"""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model


class CheckResult(Model):
    """`type` is the condition's (CamelCase), `ok` None where it can't be said. `message` is ''
    where all is well and changes only when something really did: it is kept in the store.
    `detail` is for whoever asks now, and never kept."""

    type: str
    ok: bool | None
    reason: str
    message: str = ""
    detail: str = ""


class NodeCheck(Driver, Protocol):
    """Looks at one aspect of the node it runs on."""

    async def look(self) -> tuple[CheckResult, ...]:
        """What is so now; changes nothing, ends in 10 s, never raises for what it looks for:
        that something is broken is an answer."""
        ...
