"""An event is said not to be in the stream only by a server that has all that the leader has."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trivet.contracts.errors import Retry
from trivet.runtime import nats_bus
from trivet.runtime.nats_bus import MESSAGE_ID_HEADER, NatsBus
from trivet.runtime.nats_tail import Delivery

SUBJECT = "trivet.evt.compute.vm.created.v1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDLE = None


class Leader:
    """A link to a leader whose newest message of the subject is number 3."""

    async def api(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        assert (subject, body) == ("STREAM.MSG.GET.EVENTS", {"last_by_subj": SUBJECT})
        return {"message": {"seq": 3, "time": "2026-01-01T00:00:00.123456789Z"}}


class Life:
    """A consumer on a server that delivers these."""

    def __init__(self, *steps: Delivery | None) -> None:
        self._steps = steps

    async def deliveries(self) -> AsyncGenerator[Delivery | None, None]:
        for step in self._steps:
            yield step


def told(seq: int) -> Delivery:
    return Delivery(seq, SUBJECT, {MESSAGE_ID_HEADER: f"compute/{seq}/0"}, b"", 0)


async def found(monkeypatch: pytest.MonkeyPatch, life: Life, since: datetime) -> int | None:
    @asynccontextmanager
    async def consumer(*_: object, **__: object) -> AsyncIterator[Life]:
        yield life

    monkeypatch.setattr(nats_bus, "consumer", consumer)
    bus = NatsBus(Leader())  # type: ignore[arg-type]
    return await bus.find_event(SUBJECT, "compute/2/0", since=since)


@pytest.mark.parametrize(
    ("life", "number"),
    [
        pytest.param(Life(told(1), told(2), told(3)), 2, id="there"),
        pytest.param(Life(told(1), told(3)), None, id="not there, by one that has all"),
        pytest.param(Life(told(3)), None, id="not there"),
    ],
)
async def test_what_a_server_that_has_all_says(
    monkeypatch: pytest.MonkeyPatch, life: Life, number: int | None
) -> None:
    assert await found(monkeypatch, life, NOW) == number


@pytest.mark.parametrize("life", [Life(IDLE), Life(told(1), IDLE), Life(told(1)), Life()])
async def test_a_server_that_is_behind_says_nothing(
    monkeypatch: pytest.MonkeyPatch, life: Life
) -> None:
    with pytest.raises(Retry):
        await found(monkeypatch, life, NOW)


async def test_what_is_older_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    later = NOW + timedelta(hours=1)
    assert await found(monkeypatch, Life(told(2), told(3)), later) is None
