"""A disk inspector that tells the disks of a list in its configuration.

For machines whose disks are known to another system already.
"""

from typing import Any, ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model
from trivet.contracts.storage.disk import DiskFacts


class ToyConfig(Model):
    """The disks, as serial numbers and sizes in bytes. `shuffles`: a fault, for the tests."""

    disks: dict[str, int] = {"TOY-1": 10**9}
    shuffles: bool = False


class ToyInspector:
    """Tells the disks it was configured with."""

    name: ClassVar[str] = "toy"
    Config: ClassVar[type[Model]] = ToyConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config = config
        self._looks = 0

    @classmethod
    async def probe(cls) -> Probe:
        """It works anywhere, and wants to be named."""
        return Probe(usable=True, reason="a list in the settings", score=-1)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """The disks of the list."""
        self._looks += 1
        found = tuple(
            DiskFacts(device=f"/dev/toy{n}", serial=serial, size_bytes=size)
            for n, (serial, size) in enumerate(self._config.disks.items())
        )
        return found[::-1] if self._config.shuffles and self._looks % 2 else found


@hookimpl
def trivet_disk_inspectors() -> list[type[ToyInspector]]:
    """Our driver."""
    return [ToyInspector]
