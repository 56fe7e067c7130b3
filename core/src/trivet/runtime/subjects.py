"""Subjects and how patterns match them, as the bus does it.

A subject is tokens joined by dots; in a pattern `*` stands for one token and a last `>` for one
or more. Kept apart because the twin, the permissions' tests and the event filter all need it.
"""

from __future__ import annotations


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject` (no wildcards) is among those that `pattern` names."""
    if pattern == subject:
        return True
    want, have = pattern.split("."), subject.split(".")
    if want[-1] == ">":
        want = want[:-1]
        if len(have) <= len(want):
            return False
        have = have[: len(want)]
    return len(want) == len(have) and all(w in ("*", h) for w, h in zip(want, have, strict=True))


def filter_of(prefix: str) -> str:
    """The pattern of everything below `prefix`, which is '' or ends in '.'."""
    if prefix and not prefix.endswith("."):
        raise ValueError(f"a prefix is '' or ends in '.', not {prefix!r}")
    return prefix + ">"
