"""A disk that does not answer is known at once, long before it is judged."""

from __future__ import annotations

from pathlib import Path

from tests.functional.storage.conftest import NAMES, until

from trivet.contracts.endpoint import EditRequest, GetRequest
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import GIB
from trivet.contracts.storage.disk import DiskFacts, DiskHealth
from trivet.contracts.storage.endpoints.disks import CRUD as DISKS
from trivet.contracts.storage.inspector import DiskReading
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.disk_inspector import FakeDiskInspector
from trivet.testing.harness import Harness


async def test_whoever_holds_what_lies_on_it_need_not_wait(tmp_path: Path) -> None:
    facts = DiskFacts(device="/dev/a", serial="a", size_bytes=GIB, holds="")
    configs = {"fake-inspector": {"disks": [facts.model_dump()]}}
    async with Harness(tmp_path, plugins=(fakes,), storage=NAMES, configs=configs) as harness:
        await harness.start("storage", bootstrap)

        async def has_role() -> bool:
            try:
                await harness.call(DISKS.edit, EditRequest(name="n1-a", spec={"role": "data"}))
            except TrivetError:
                return False
            return True

        async def answers(wanted: bool) -> bool:
            status = (await harness.call(DISKS.get, GetRequest(name="n1-a"))).status
            return status.answers is wanted and status.health is DiskHealth.OK

        await until("the disk is there", has_role)
        inspector = FakeDiskInspector.opened["n1"]
        for reading in (DiskReading(answered=False), DiskReading(latency_ms=1.0)):
            inspector.readings["/dev/a"] = [reading]
            await until("that is known", lambda r=reading: answers(r.answered))
