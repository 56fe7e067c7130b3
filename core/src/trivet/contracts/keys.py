"""Keys of the store that are not resources: where they are, and what they hold."""

from __future__ import annotations

from trivet.contracts.model import Model, ResourceId


class Assignment(Model):
    """A pointer in `assign.<node>.<kind>.<id>`: that node's agent has work with the resource
    of `key`, at least up to `generation`."""

    kind: str
    id: ResourceId
    key: str
    generation: int


def assignment_key(node: str, kind: str, id_: ResourceId) -> str:
    """The key of a node's assignment."""
    return f"assign.{node}.{kind}.{id_}"


def assignments_of(node: str) -> str:
    """The prefix of all assignments of a node."""
    return f"assign.{node}."


def claim_key(what: str, *parts: str) -> str:
    """The key of a claim (an address, a MAC, a VNI): made once, by `create`, or refused.

    Parts are lower-cased, and ':' and '/' become '-', since keys are bus subjects.
    """
    clean = (p.lower().replace(":", "-").replace("/", "-") for p in parts)
    return ".".join(("claim", what, *clean))
