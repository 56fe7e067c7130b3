"""What is kept of each gateway of a node, in a file a network, and how its parts are called.

Names: namespace `<prefix>-gw-<10 hex of the network's id>`, in the bridge `<prefix>g<10 hex>`,
at the node `<prefix>x<10 hex>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.plugins.network.records import read_record, write_record
from trivet.plugins.network.transit import Transit


class LegRecord(Model):
    """What is kept of a leg: as asked, its transit, whether it was made to the end, and the
    digest of its rules then."""

    leg: GatewayLeg
    transit: int | None
    made: bool
    rules: str = ""

    @property
    def way(self) -> Transit | None:
        """The transit."""
        return None if self.transit is None else Transit(self.transit)


@dataclass(frozen=True)
class LegRecords:
    """The records of one node."""

    folder: Path
    prefix: str

    def namespace(self, network: ResourceId) -> str:
        """The network namespace of that network's gateway."""
        return f"{self.prefix}-gw-{network[-10:]}"

    def inward(self, network: ResourceId) -> str:
        """The gateway's link in the network's bridge."""
        return f"{self.prefix}g{network[-10:]}"

    def outward(self, network: ResourceId) -> str:
        """The gateway's link at the node."""
        return f"{self.prefix}x{network[-10:]}"

    def bridge(self, vni: int) -> str:
        """The bridge of a segment."""
        return f"{self.prefix}br{vni}"

    def get(self, network: ResourceId) -> LegRecord | None:
        """The record of that network's gateway."""
        return read_record(self._path(network), LegRecord)

    def all(self) -> list[LegRecord]:
        """All records, in order of network."""
        found = (read_record(p, LegRecord) for p in sorted(self.folder.glob("leg-*.json")))
        return [r for r in found if r is not None]

    def save(self, record: LegRecord) -> None:
        """Keep a record, durably."""
        write_record(self._path(record.leg.network), record)

    def remove(self, network: ResourceId) -> None:
        """Forget a gateway; one that is not known is fine."""
        self._path(network).unlink(missing_ok=True)

    def _path(self, network: ResourceId) -> Path:
        return self.folder / f"leg-{network}.json"
