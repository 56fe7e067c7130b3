"""When the bus must be started anew because its disk was full: a pure decision of the supervisor.

A write that finds no space leaves nats-server refusing every later one to that stream, also when
there is room again; only a new start mends it. Nothing is lost by one: what it acknowledged is on
disk, and services live through it. So whoever saw the space go, starts it when space is back.
"""

from __future__ import annotations

from dataclasses import dataclass

FULL_BYTES = 16 * 1024 * 1024
"""Below this a write may have failed."""

ROOM_BYTES = 64 * 1024 * 1024
"""From this on there is room again."""


@dataclass(frozen=True)
class Space:
    """The space on the bus's disk, as seen so far. `starved`: it was used up since the start."""

    starved: bool = False

    def seen(self, free_bytes: int) -> Space:
        """After another look."""
        return Space(self.starved or free_bytes < FULL_BYTES)

    def start_anew(self, free_bytes: int) -> bool:
        """Whether the server is to be started anew now."""
        return self.starved and free_bytes >= ROOM_BYTES
