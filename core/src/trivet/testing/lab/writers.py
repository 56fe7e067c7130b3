"""Users of a cluster who never give up, and know at the end what must be there.

A writer makes groups, changes them and deletes some, one call after the other, through one
gateway. A call whose outcome is not known is made again until it is; so what was done last is
known for every name, and anything else that the cluster says then is a lost write, or one that
came back.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from trivet.client import Client
from trivet.contracts.errors import NAME_TAKEN, NOT_FOUND, Code, Refused, Retry, TrivetError
from trivet.contracts.security.group import SECURITY_GROUP

AGAIN_S = 0.2
BUSY_S = 0.05
STOP_S = 60.0
LABEL = "written"
OWNER = "writer"


class Writer:
    """One user; `wanted` maps names to the label that they must have, None: gone."""

    def __init__(self, number: int, client: Callable[[], Client], seed: int) -> None:
        self._number = number
        self._client = client
        self._chosen = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.wanted: dict[str, int | None] = {}
        self.longest_s = 0.0
        self.failed: TrivetError | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Have it end once the outcome of its last call is known."""
        self._stop.set()
        self._thread.join(STOP_S)

    @property
    def ended(self) -> bool:
        """Whether it has ended, with every call's outcome known."""
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            with self._client() as client:
                while not self._stop.is_set():
                    self._one(client)
                    time.sleep(BUSY_S)
        except TrivetError as error:
            self.failed = error

    def _one(self, client: Client) -> None:
        """The life of one name."""
        name = f"w{self._number}-{len(self.wanted)}"
        labels = {OWNER: str(self._number)}
        groups = client.security_groups
        self._known(partial(groups.create, name, spec={}, labels=labels), NAME_TAKEN)
        for value in range(1, self._chosen.randrange(1, 4)):
            changed = {**labels, LABEL: str(value)}
            self._known(partial(groups.edit, name, labels=changed))
            self.wanted[name] = value
        self.wanted.setdefault(name, 0)
        if self._chosen.random() < 0.4:
            self._known(partial(groups.delete, name), NOT_FOUND)
            self.wanted[name] = None

    def _known(self, call: Callable[[], object], done: Code | None = None) -> None:
        """Make a call until its outcome is known; `done`: the refusal that says that it was made
        by an earlier attempt."""
        began, attempts = time.monotonic(), 0
        while True:
            attempts += 1
            try:
                call()
            except Retry:
                time.sleep(AGAIN_S)
                continue
            except Refused as error:
                if error.code is not done or attempts == 1:
                    raise
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            return


def differences(writers: list[Writer], client: Client) -> list[str]:
    """What a cluster says that is not what its users know, a line each."""
    there = {
        group.meta.name: int(group.meta.labels.get(LABEL, "0"))
        for group in client.kind(SECURITY_GROUP).list()
        if OWNER in group.meta.labels and group.meta.deleting_at is None
    }
    wanted = {name: value for w in writers for name, value in w.wanted.items()}
    return [
        f"{name}: {there.get(name, 'gone')}, and must be {'gone' if value is None else value}"
        for name, value in wanted.items()
        if there.get(name) != value
    ]
