"""`--wait`: look again until a resource is as asked, saying what happens meanwhile on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.errors import NOT_FOUND, TIMEOUT, Fatal, Refused, Retry, code
from trivet.contracts.resource import AnyResource, Phase

FAILED = code("resource.failed", 500, "The resource failed")
DEFAULT_WAIT_S = 300.0
STEP_S = 2.0
PAUSE_S = 0.2
QUIET_S = 1.0


class Wait:
    """Waits for one resource, at most `wait_s` seconds in all."""

    def __init__(
        self, client: Client, get: Endpoint[Any, Any], resource: AnyResource, wait_s: float
    ) -> None:
        self._client = client
        self._get = get
        self._resource = resource
        self._begun = time.monotonic()
        self._wait_s = wait_s
        self._told = ""

    def settled(self) -> AnyResource:
        """The resource once it has settled. Raises `Retry(TIMEOUT)`, and `Fatal(FAILED)` with
        its reasons where it failed."""
        seen = self._until(lambda resource: resource.settled())
        if seen is None:
            raise Refused(NOT_FOUND, f"{self._name()} was deleted meanwhile")
        if not seen.settled():
            raise self._over(seen)
        if seen.status.phase is Phase.FAILED:
            raise Fatal(FAILED, f"{self._name()} failed: {reasons(seen) or 'no reason was told'}")
        return seen

    def gone(self) -> None:
        """Wait until it is gone. Raises `Retry(TIMEOUT)`."""
        seen = self._until(lambda resource: False)
        if seen is not None:
            raise self._over(seen)

    def guest_ready(self) -> AnyResource:
        """The VM once its guest said that it is ready. Raises `Retry(TIMEOUT)` where it did not
        in time, and `Fatal(FAILED)` where it is gone or does not run any more."""

        def over(resource: AnyResource) -> bool:
            running = isinstance(resource, Vm) and resource.status.power == "running"
            return not running or (isinstance(resource, Vm) and resource.status.guest_ready)

        seen = self._until(over)
        if isinstance(seen, Vm) and seen.status.guest_ready:
            return seen
        hint = f"`trivet vm log {self._resource.meta.name}` shows what its console says"
        if not isinstance(seen, Vm) or seen.status.power != "running":
            how = f"is {seen.status.power}" if isinstance(seen, Vm) else "is gone"
            why = reasons(seen) if seen is not None else "deleted meanwhile"
            raise Fatal(
                FAILED, f"{self._name()} {how} before its guest was ready: {why}", hint=hint
            )
        told = f"{self._name()} runs, and its guest has not said READY after {self._wait_s:g} s"
        raise Retry(TIMEOUT, told, hint=hint)

    def _until(self, done: Callable[[AnyResource], bool]) -> AnyResource | None:
        """The resource once `done`, or when the time is over; None: it is gone."""
        while not done(self._resource):
            left_s = self._wait_s - (time.monotonic() - self._begun)
            if left_s <= 0:
                return self._resource
            self._tell()
            request = build_request(
                self._get,
                self._resource.meta.name,
                {"project": self._resource.meta.project},
                self._client.project,
            )
            try:
                seen = self._client.call(self._get, request, wait_s=round(min(STEP_S, left_s), 1))
            except Retry as error:
                self._say(f"not reachable for now: {error.detail}")
                time.sleep(PAUSE_S)
                continue
            except Refused as error:
                if error.code is NOT_FOUND:
                    return None
                raise
            if seen.meta.id != self._resource.meta.id:
                return None
            self._resource = seen
            if not done(seen):
                time.sleep(PAUSE_S)
        return self._resource

    def _tell(self) -> None:
        """Say how it is, when that is news and it already takes a while."""
        if time.monotonic() - self._begun < QUIET_S:
            return
        status = self._resource.status
        words = [status.phase.value, reasons(self._resource)]
        if isinstance(self._resource, Vm):
            words.insert(1, f"power {status.power}" + (f" on {status.node}" if status.node else ""))
            if self._resource.settled() and not status.guest_ready:
                words.append("waiting for the guest")
        if progress := getattr(status, "progress_pct", 0):
            words.append(f"{progress} %")
        self._say("; ".join(word for word in words if word))

    def _say(self, text: str) -> None:
        if text != self._told:
            self._told = text
            after_s = time.monotonic() - self._begun
            print(f"==> [{after_s:5.1f} s] {self._name()}: {text}", file=sys.stderr, flush=True)

    def _name(self) -> str:
        return f"{self._get.noun} {self._resource.meta.name}"

    def _over(self, seen: AnyResource) -> Retry:
        why = reasons(seen)
        told = f"{self._name()} is {seen.status.phase} after {self._wait_s:g} s"
        return Retry(TIMEOUT, f"{told}: {why}" if why else told, hint="it goes on; look again")


def reasons(resource: AnyResource) -> str:
    """What the conditions that are not true say."""
    told = (c for c in resource.status.conditions if c.status != "true")
    return "; ".join(f"{c.reason}: {c.message}" if c.message else c.reason for c in told)
