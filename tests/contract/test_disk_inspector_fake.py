"""The fake disk inspector keeps the law for disk inspectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.storage.disk import DiskFacts
from trivet.testing.fakes.disk_inspector import FakeDiskInspector, FakeInspectorConfig
from trivet.testing.suites.disk_inspector import DiskInspectorSuite

DISKS = (
    DiskFacts(device="/dev/vdb", serial="S1", size_bytes=1000, holds=""),
    DiskFacts(device="/dev/vdc", serial="S2", size_bytes=1000, holds="ext4"),
)


@pytest.fixture
def driver(tmp_path: Path) -> FakeDiskInspector:
    context = DriverContext("n1", tmp_path, tmp_path)
    return FakeDiskInspector(context, FakeInspectorConfig(disks=DISKS))


class TestFakeDiskInspector(DiskInspectorSuite):
    """The suite, on the fake."""
