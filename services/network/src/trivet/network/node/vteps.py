"""The tunnel addresses of all nodes: each says its own in `vtep.<node>`, all keep a copy."""

from __future__ import annotations

from collections.abc import Callable

from trivet.contracts.model import Model
from trivet.runtime.cas import change_value
from trivet.runtime.store import Change, Store

PREFIX = "vtep."


class Vtep(Model):
    """A node's tunnel address."""

    address: str


class Vteps:
    """A copy of all tunnel addresses, kept by the feed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._callbacks: list[Callable[[], None]] = []
        self.addresses: dict[str, str] = {}

    def take(self, change: Change) -> None:
        """A step of the feed."""
        node = change.key.removeprefix(PREFIX)
        if change.value is None:
            self.addresses.pop(node, None)
        else:
            self.addresses[node] = Vtep.model_validate_json(change.value).address
        for callback in self._callbacks:
            callback()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` when any node's address changes."""
        self._callbacks.append(callback)

    async def say(self, node: str, address: str | None) -> None:
        """Record this node's address; None removes it."""
        key = PREFIX + node
        wanted = Vtep(address=address) if address is not None else None
        await change_value(self._store, key, Vtep, lambda there: wanted)
