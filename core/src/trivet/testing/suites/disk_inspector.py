"""What every disk inspector must do: tell whole disks, the same ones each time, and no guesses.

Bind it by subclassing, with a fixture `driver` that gives an opened inspector.
"""

from __future__ import annotations

from trivet.contracts.driver import Probe
from trivet.contracts.model import Model
from trivet.contracts.storage.inspector import DiskInspector


class DiskInspectorSuite:
    """The law of `contracts.storage.inspector`, and the part of it that all drivers share."""

    async def test_it_is_named_and_configured_by_a_model(self, driver: DiskInspector) -> None:
        """Settings name a driver, and check its configuration."""
        assert driver.name
        assert issubclass(driver.Config, Model)

    async def test_its_probe_says_why(self, driver: DiskInspector) -> None:
        """A probe has a sentence for people, whatever it found."""
        probe = await type(driver).probe()
        assert isinstance(probe, Probe)
        assert probe.reason.strip()

    async def test_disks_are_told_apart_for_ever(self, driver: DiskInspector) -> None:
        """A disk is known by its serial, so each has one of its own; so has its path."""
        disks = await driver.disks()
        serials = [d.serial for d in disks]
        assert all(serials), "a disk without a serial can't be told from another"
        assert len(set(serials)) == len(serials)
        assert len({d.device for d in disks}) == len(disks)

    async def test_disks_are_devices_with_a_size(self, driver: DiskInspector) -> None:
        """A path under /dev, and bytes."""
        for disk in await driver.disks():
            assert disk.device.startswith("/dev/"), disk
            assert disk.size_bytes > 0, disk

    async def test_looking_changes_nothing(self, driver: DiskInspector) -> None:
        """Two looks at the same disks agree: same order, same content."""
        assert await driver.disks() == await driver.disks()

    async def test_closing_twice_is_fine(self, driver: DiskInspector) -> None:
        """As for all drivers."""
        await driver.close()
        await driver.close()
