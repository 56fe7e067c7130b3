"""The law for disk inspectors, as tests: subclass `DiskInspectorSuite` and provide `driver`."""

from __future__ import annotations

from trivet.contracts.storage.inspector import DiskInspector


class DiskInspectorSuite:
    """What every disk inspector must pass, on whatever machine it looks at."""

    async def test_disks_are_told_apart(self, driver: DiskInspector) -> None:
        """No two disks share a device or a serial."""
        await driver.open()
        disks = await driver.disks()
        assert len({d.device for d in disks}) == len({d.serial for d in disks}) == len(disks)

    async def test_looking_changes_nothing(self, driver: DiskInspector) -> None:
        """Two looks tell the same."""
        await driver.open()
        assert await driver.disks() == await driver.disks()

    async def test_facts_are_whole(self, driver: DiskInspector) -> None:
        """Each has a size and a serial."""
        await driver.open()
        assert all(d.size_bytes > 0 and d.serial for d in await driver.disks())
