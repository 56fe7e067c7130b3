"""Calls that died with the process that had them: they end when its successor starts.

A process that is killed answers nothing, and the bus can't tell that from one that is busy, so
its callers would wait for their whole deadline. Hence a service says on the bus that it starts,
before it takes its first call: what was on its way to its predecessor on that node is lost, and
ends as a timeout does (nobody knows whether it happened). Nobody knows either which node has a
call that any may answer: so all of them get `GRACE_S` to be answered, and no more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trivet.contracts.errors import TIMEOUT, Retry
from trivet.runtime.bus import Bus, Message, Subscription
from trivet.runtime.nats_config import BEAT_PREFIX

GRACE_S = 0.5


class Lost(Retry):
    """The process that had the call ended; it may have happened."""


async def say(bus: Bus, service: str, node: str) -> None:
    """Tell all callers that `service` starts on `node`, and that its predecessor is dead."""
    await bus.publish(f"{BEAT_PREFIX}.{service}.{node}.starts", b"")


class InFlight:
    """The calls of one client that have no answer yet."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, dict[asyncio.Timeout, str | None]] = defaultdict(dict)

    async def hear(self, bus: Bus) -> Subscription:
        """End calls as services start, until stopped."""

        async def started(message: Message) -> None:
            service, node, _ = message.subject.removeprefix(f"{BEAT_PREFIX}.").split(".")
            self.cut(service, node)

        return await bus.subscribe(f"{BEAT_PREFIX}.*.*.starts", started)

    def cut(self, service: str, node: str) -> None:
        """End the calls that an instance of `service` on `node` may have taken, after the grace."""
        end = asyncio.get_running_loop().time() + GRACE_S
        for waiting, wanted in self._waiting[service].items():
            if wanted in (None, node) and waiting.when() is None:
                waiting.reschedule(end)

    @asynccontextmanager
    async def awaiting(self, service: str, node: str | None) -> AsyncIterator[None]:
        """For the time of one call, to `node` or (None) to any; raises `Lost`."""
        calls = self._waiting[service]
        try:
            async with asyncio.timeout(None) as waiting:
                calls[waiting] = node
                try:
                    yield
                finally:
                    del calls[waiting]
        except TimeoutError:
            detail = f"{service} was started anew during the call; it may have happened"
            raise Lost(TIMEOUT, detail) from None

    def __repr__(self) -> str:
        return f"<InFlight {sum(map(len, self._waiting.values()))} calls>"
