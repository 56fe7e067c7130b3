"""Which resources a node's agent has work with: small pointers that controllers write.

An agent looks at what is assigned to its node and nothing else, so its cost grows with the
node and not with the cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from trivet.contracts.keys import Assignment, assignment_key, assignments_of
from trivet.contracts.model import ResourceId
from trivet.runtime.store import Change, Store
from trivet.runtime.values import Values

ALL = "assign."


class Assignments:
    """Writes and removes pointers. Fed with all of them, it knows those that are there already,
    and tells of those that go: whoever wants one that is gone then points anew."""

    def __init__(self, store: Store) -> None:
        self._pointers = Values(store, ALL, Assignment)
        self._dropped: list[Callable[[str, str], None]] = []

    @property
    def prefix(self) -> str:
        """What the keys of all pointers begin with."""
        return self._pointers.prefix

    def take(self, change: Change) -> None:
        """A step of the feed."""
        gone = self._pointers.peek(change.key) if change.value is None else None
        self._pointers.take(change)
        if gone is not None:
            for callback in self._dropped:
                callback(gone.kind, gone.key)

    def on_dropped(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback(kind, key of the resource)` when a pointer has gone."""
        self._dropped.append(callback)

    def points(self, node: str, kind: str, id_: ResourceId, key: str, generation: int) -> bool:
        """Whether `node` is known to be pointed there, at least at that generation."""
        there = self._pointers.peek(assignment_key(node, kind, id_))
        return there is not None and there.key == key and there.generation >= generation

    async def assign(
        self, node: str, kind: str, id_: ResourceId, key: str, generation: int
    ) -> None:
        """Point `node` at the resource of `key`, at least at that generation; repeatable.

        A pointer that the copy has is not looked for: should it be on its way out, its going is
        told (`on_dropped`)."""
        if self.points(node, kind, id_, key, generation):
            return
        wanted = Assignment(kind=kind, id=id_, key=key, generation=generation)
        where = assignment_key(node, kind, id_)

        def point(there: Assignment | None) -> Assignment:
            if there is not None and there.key == key and there.generation >= generation:
                return there
            return wanted

        await self._pointers.change(where, point)

    async def release(self, node: str, kind: str, id_: ResourceId) -> None:
        """Remove the pointer; gone already is fine."""
        where = assignment_key(node, kind, id_)
        await self._pointers.change(where, lambda there: None)


class Assigned:
    """A copy of one node's pointers, kept by the feed."""

    def __init__(self, node: str) -> None:
        self.prefix = assignments_of(node)
        self._pointers: dict[str, Assignment] = {}
        self._ids: dict[tuple[str, str], set[ResourceId]] = defaultdict(set)
        self._callbacks: list[Callable[[str, str], None]] = []

    def keys(self, kind: str) -> list[str]:
        """The keys of all resources of `kind` that are assigned to the node."""
        return [p.key for p in self._pointers.values() if p.kind == kind]

    def pointers(self, kind: str) -> list[Assignment]:
        """All pointers of `kind`."""
        return [p for p in self._pointers.values() if p.kind == kind]

    def pointer(self, kind: str, id_: str) -> Assignment | None:
        """The pointer to that resource, if it is assigned to the node."""
        return self._pointers.get(f"{self.prefix}{kind}.{id_}")

    def ids(self, kind: str, key: str) -> list[ResourceId]:
        """The ids under which `key` is assigned: more than one while a name changes hands."""
        return sorted(self._ids.get((kind, key), ()))

    def has(self, kind: str, id_: str) -> bool:
        """Whether that resource is assigned to the node."""
        return self.pointer(kind, id_) is not None

    def on_change(self, callback: Callable[[str, str], None]) -> None:
        """Call `callback(kind, key of the resource)` when a pointer comes, changes or goes."""
        self._callbacks.append(callback)

    def take(self, change: Change) -> None:
        """A step of the feed."""
        old = self._pointers.pop(change.key, None)
        if old is not None:
            self._forget(old)
        pointer = old
        if change.value is not None:
            pointer = Assignment.model_validate_json(change.value)
            self._pointers[change.key] = pointer
            self._ids[pointer.kind, pointer.key].add(pointer.id)
        if pointer is not None:
            for callback in self._callbacks:
                callback(pointer.kind, pointer.key)

    def _forget(self, pointer: Assignment) -> None:
        ids = self._ids[pointer.kind, pointer.key]
        ids.discard(pointer.id)
        if not ids:
            del self._ids[pointer.kind, pointer.key]
