"""The loop that makes things so: woken by anything, it looks and acts, one worker an object.

Level-triggered: a wake-up carries nothing but a key, so a lost or doubled one does no harm;
every key is looked at again each `resync_s` anyway. Such a look at all is cheap where its owner
says what it takes: a `survey` sees the world once for all keys, and `calm` judges by that, in
memory, which of them a look of its own would find nothing to do for; it goes on by slices
(`pace`), in a hurry only when the loop begins. An object is worked on by one task at a
time; a wake-up meanwhile means one more look after it. A failure is retried with a growing
delay of its own, and never stops another object's work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from trivet.contracts.errors import CONFLICT, INTERNAL, Fatal, Refused, Retry
from trivet.runtime.clock import Clock
from trivet.runtime.metrics import Looks
from trivet.runtime.pace import paced
from trivet.runtime.telemetry import look_span

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 30.0
LAST_RETRY_S = 3.0
"""What is only not possible now is tried again sooner than what failed: a service that comes
back finds its callers within seconds."""

Reconcile = Callable[[str], Awaitable[float | None]]
Survey = Callable[[], Awaitable[None]]
Calm = Callable[[str], bool]


def never_calm(key: str) -> bool:
    """Of one who can't judge without a look."""
    return False


class Reconciler:
    """Runs `reconcile(key)` for woken keys, at most `bound` at once.

    `reconcile` returns after how many seconds to look again (None: when woken, or at the next
    resync). `keys` lists all keys that are to be looked at from time to time: `survey` comes
    before, and those that are then `calm` are not woken. Neither of the two changes anything.
    `apart_s`: so long a key rests after a look, and what wakes it meanwhile is one look, then:
    for looks that cost more than they may come late.
    """

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        clock: Clock,
        keys: Callable[[], Iterable[str]],
        bound: int = 8,
        resync_s: float = 60.0,
        survey: Survey | None = None,
        calm: Calm = never_calm,
        apart_s: float = 0.0,
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._clock = clock
        self._keys = keys
        self._bound = bound
        self._resync_s = resync_s
        self._survey = survey
        self._calm = calm
        self._apart_s = apart_s
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._resting: dict[str, asyncio.TimerHandle] = {}
        self._running = False
        self._looks = Looks(name)

    def wake(self, key: str) -> None:
        """Look at `key` soon. The queue holds each key once, so it is bounded by the keys; one
        that does not run (its instance does not lead) looks at all of them when it begins."""
        if not self._running:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working or key in self._resting:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._queue.put_nowait(key)
            self._looks.queue.set(len(self._queued))

    async def run(self) -> None:
        """Work until cancelled; what was in work is then cancelled too."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._bound):
                    group.create_task(self._work())
                group.create_task(self._resync())
        finally:
            self._running = False
            for timer in (*self._timers.values(), *self._resting.values()):
                timer.cancel()
            self._timers.clear()
            self._resting.clear()
            self._working.clear()
            self._again.clear()
            self._queued.clear()
            self._queue = asyncio.Queue()

    async def _resync(self) -> None:
        first = True
        while True:
            await self._look_at_all(hurry=first)
            first = False
            await self._clock.sleep(self._resync_s)

    async def _look_at_all(self, *, hurry: bool) -> None:
        """Wake all keys that are not calm."""
        if self._survey is not None:
            try:
                await self._survey()
            except Exception:
                log.exception("%s: what is seen of all failed", self.name)
        async for key in paced(self._keys(), self._clock, hurry=hurry):
            if key not in self._timers and not self._calm(key):
                self.wake(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._queued.discard(key)
            self._looks.queue.set(len(self._queued))
            self._working.add(key)
            try:
                delay = await self._once(key)
            finally:
                self._working.discard(key)
            if self._apart_s:
                loop = asyncio.get_running_loop()
                self._resting[key] = loop.call_later(self._apart_s, self._rested, key)
            if key in self._again:
                self._wake_again(key)
            elif delay is not None and key not in self._queued:
                self._later(key, delay)

    def _rested(self, key: str) -> None:
        del self._resting[key]
        if key in self._again:
            self._wake_again(key)

    def _wake_again(self, key: str) -> None:
        """Look once more, for what woke it during a look or the rest after it."""
        self._again.discard(key)
        self.wake(key)

    async def _once(self, key: str) -> float | None:
        began = time.perf_counter()
        try:
            with look_span(self.name, key):
                delay = await self._reconcile(key)
        except Retry as error:
            self._looks.note("retry", began)
            log.info("%s %s: %s", self.name, key, error)
            return error.retry_after_s or self._backoff(key, LAST_RETRY_S)
        except Refused as error:
            if error.code is CONFLICT:
                # Somebody wrote first: look again at once. Whoever meets that again and again
                # does not ask what is true now, and must not keep a processor busy with it.
                self._looks.note("conflict", began)
                again = key in self._failures
                delay = self._backoff(key)
                return delay if again else 0.0
            self._looks.note("refused", began)
            log.warning("%s %s: %s", self.name, key, error)
            return self._backoff(key)
        except Exception as error:
            self._looks.note("failed", began)
            # What a driver tells says enough; what nobody has told of needs its traceback.
            where = not isinstance(error, Fatal) or error.code is INTERNAL
            log.error("%s %s failed: %s", self.name, key, error, exc_info=where)  # noqa: TRY400
            return self._backoff(key)
        self._looks.note("done", began)
        if self._failures.pop(key, None) is not None:
            self._looks.failing.set(len(self._failures))
        return delay

    def _backoff(self, key: str, last_s: float = LAST_BACKOFF_S) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._looks.failing.set(len(self._failures))
        return min(FIRST_BACKOFF_S * 2.0 ** min(failures, 16), last_s)

    def _later(self, key: str, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(delay, self.wake, key)
