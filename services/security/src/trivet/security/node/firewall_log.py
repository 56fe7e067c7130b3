"""The newest packets that rules with `log` told on this node, a bounded number for each group.

They are kept in memory: they are for looking at what happens, not for evidence. Who keeps them
for longer follows them from here.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import FirewallBackend, LogEntry, RuleHits

ENTRIES_A_GROUP = 1000
GROUPS = 200


class FirewallLog:
    """What the backend told, by group."""

    def __init__(self, backend: FirewallBackend) -> None:
        self._backend = backend
        self._kept: OrderedDict[ResourceId, deque[LogEntry]] = OrderedDict()

    async def collect(self) -> None:
        """Take what the backend has; of very many groups those heard of last are kept."""
        for entry in await self._backend.logged():
            self._kept.setdefault(entry.group, deque(maxlen=ENTRIES_A_GROUP)).append(entry)
            self._kept.move_to_end(entry.group)
        while len(self._kept) > GROUPS:
            self._kept.popitem(last=False)

    async def of(self, group: ResourceId) -> tuple[LogEntry, ...]:
        """The entries of a group, oldest first."""
        await self.collect()
        return tuple(self._kept.get(group, ()))

    async def hits(self, group: ResourceId) -> tuple[RuleHits, ...]:
        """How often its rules decided here."""
        return tuple(hits for hits in await self._backend.hits() if hits.group == group)
