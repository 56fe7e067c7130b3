"""The law for alarm sinks as tests: bind `sink` (opened) and `receiver`, and inherit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

import pytest

from trivet.contracts.alarm import AlarmState, Severity, Subject
from trivet.contracts.alarm_sink import AlarmNotice, AlarmSink
from trivet.contracts.errors import Retry
from trivet.contracts.model import ResourceId

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Receiver(Protocol):
    """Whoever is told."""

    async def taken(self) -> list[str]:
        """The keys of the notices that came, in order."""
        ...

    async def fail(self) -> None:
        """Be unable to take anything until `mend`."""
        ...

    async def mend(self) -> None:
        """Take notices again."""
        ...


def some_notice(change: int = 1, **changes: object) -> AlarmNotice:
    """A notice about a pool."""
    plain = {
        "key": f"alarm-0123456789abcdef/{change}",
        "service": "storage",
        "node": "n1",
        "name": "pool-full-0123456789",
        "rule": "pool-full",
        "severity": Severity.CRITICAL,
        "state": AlarmState.RAISED,
        "subject": Subject(kind="Pool", id=ResourceId("pool-1"), name="default"),
        "title": "A pool is full",
        "cause": 'pool default is 99 % full on n1: 0.1 GiB are left ("thin" \\ [x])',
        "remedy": "Make room",
        "raised_at": NOW,
    }
    return AlarmNotice.model_validate({**plain, **changes})


class AlarmSinkSuite:
    """What holds for every alarm sink."""

    async def test_a_notice_arrives(self, sink: AlarmSink, receiver: Receiver) -> None:
        """With the key by which it is known."""
        await sink.tell(some_notice())
        assert await receiver.taken() == [some_notice().key]

    async def test_a_cleared_one_arrives(self, sink: AlarmSink, receiver: Receiver) -> None:
        """After the raised one, in order."""
        await sink.tell(some_notice(1))
        await sink.tell(some_notice(2, state=AlarmState.CLEARED, cleared_at=NOW))
        assert await receiver.taken() == [some_notice(1).key, some_notice(2).key]

    async def test_words_of_any_language_arrive(self, sink: AlarmSink, receiver: Receiver) -> None:
        """And line ends break no message apart."""
        await sink.tell(some_notice(cause="größer\nals 90 %: 満杯"))
        assert await receiver.taken() == [some_notice().key]

    async def test_one_that_can_t_be_told_is_for_later(
        self, sink: AlarmSink, receiver: Receiver
    ) -> None:
        """`Retry`, and the same notice arrives once the receiver is back."""
        await receiver.fail()
        with pytest.raises(Retry):
            await sink.tell(some_notice())
        await receiver.mend()
        await sink.tell(some_notice())
        assert (await receiver.taken())[-1] == some_notice().key

    async def test_the_same_may_be_told_twice(self, sink: AlarmSink, receiver: Receiver) -> None:
        """It comes twice at most, under the same key."""
        await sink.tell(some_notice())
        await sink.tell(some_notice())
        assert set(await receiver.taken()) == {some_notice().key}
