"""How setting up a node fails: one line that says what, and what to do."""

from __future__ import annotations

from trivet.contracts.errors import Fatal, code

SETUP_FAILED = code("host.setup_failed", 500, "This machine could not be set up")


def failed(what: str, *, hint: str | None = None) -> Fatal:
    """The error of a step that could not be done."""
    return Fatal(SETUP_FAILED, what, hint=hint)
