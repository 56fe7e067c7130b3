"""Handlers at work: concurrent, bounded, and none for an answer that nobody awaits any more.

The bus clients deliver one message after the other; here each becomes a task, at most `bound`
at once. What is over the bound waits in order; when its deadline goes by it is dropped
unanswered, and beyond `WAITING_MAX` the newest is dropped at once, since the caller's own
deadline tells it. Both the real bus and its twin answer through this.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from trivet.runtime.bus import Handler, Message

log = logging.getLogger(__name__)

WAITING_MAX = 10_000

Reply = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True)
class _Job:
    message: Message
    deadline: float | None
    reply: Reply


class Handlers:
    """Runs one handler for many messages. Times are the event loop's."""

    def __init__(self, handler: Handler, bound: int) -> None:
        if bound < 1:
            raise ValueError(f"a bound is at least 1, not {bound}")
        self._handler = handler
        self._bound = bound
        self._waiting: deque[_Job] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    def accept(self, message: Message, deadline: float | None, reply: Reply) -> None:
        """Handle `message` now or when there is room; `reply` gets what the handler returned."""
        if len(self._waiting) >= WAITING_MAX:
            log.warning("%s: too many requests wait; one is dropped", message.subject)
            return
        self._waiting.append(_Job(message, deadline, reply))
        if len(self._workers) < self._bound:
            self._workers.add(asyncio.create_task(self._work()))

    async def drained(self) -> None:
        """Wait until what was accepted is done (a handler may itself be the one who waits)."""
        others = self._workers - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        try:
            await self._work_off()
        finally:
            # Here and not in a callback of the task: what is accepted between its last look
            # and the callback would wait for a worker that has gone.
            self._workers.discard(me)

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            job = self._waiting.popleft()
            remaining = None if job.deadline is None else job.deadline - loop.time()
            if remaining is not None and remaining <= 0:
                continue
            try:
                answer = await self._handler(replace(job.message, remaining_s=remaining))
                await job.reply(answer)
            except Exception:
                log.exception("a handler of %s failed and answers nothing", job.message.subject)

    def __repr__(self) -> str:
        return f"<Handlers {len(self._workers)}/{self._bound} waiting={len(self._waiting)}>"
