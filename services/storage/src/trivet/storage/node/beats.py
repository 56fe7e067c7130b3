"""The storage service's heartbeat on a node: core messages that never enter the store.

Who hears them knows that this node's agent runs and reaches the bus, and nothing more.
"""

from __future__ import annotations

from trivet.runtime.service import Service

BEATS_IN_SILENCE = 5


def beat_subject(node: str) -> str:
    """Where a node's heartbeat is heard; '*' for all nodes."""
    return f"trivet.beat.storage.{node}"


class Beats:
    """Beats until cancelled."""

    def __init__(self, service: Service) -> None:
        self._runtime = service.runtime

    async def run(self) -> None:
        """Beat several times within what counts as silence."""
        runtime = self._runtime
        every_s = runtime.settings.storage.node_silent_s / BEATS_IN_SILENCE
        while True:
            await runtime.bus.publish(beat_subject(runtime.node), b"{}")
            await runtime.clock.sleep(every_s)
