"""The lab as it was asked for: nodes, networks and names, all of which follow from one value.

Pure but for the file that it is kept in. Everything that the lab makes on the machine has a name
that follows from its folder, so that `down` finds it also where nothing was written down.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import Model
from trivet.host.founding import Place
from trivet.host.layout import Layout

NODES_MAX = 9
DISKS_MAX = 9
WITNESS = "witness"
WITNESS_NUMBER = 100
HOST_NUMBER = 254
NETS = ("mgmt", "storage")


class LabPlan(Model):
    """`net`: the third number of both networks' addresses (`10.231.<net>.0/24` is for
    management, `10.232.<net>.0/24` for storage); a node's number is the last one. `disks`: of
    each node, of which the first `ssd` are solid-state."""

    root: Path
    nodes: int = Field(ge=1, le=NODES_MAX)
    disks: int = Field(default=0, ge=0, le=DISKS_MAX)
    ssd: int = Field(default=0, ge=0, le=DISKS_MAX)
    witness: bool = False
    net: int = Field(ge=0, le=255)

    @property
    def base(self) -> Layout:
        """What all nodes share: programs, the authority, the caller's configuration."""
        return Layout(self.root)

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, the witness last."""
        named = tuple(f"n{number}" for number in range(1, self.nodes + 1))
        return (*named, WITNESS) if self.witness else named

    @property
    def workers(self) -> tuple[str, ...]:
        """The nodes that do more than vote."""
        return tuple(name for name in self.names if name != WITNESS)

    def node(self, named: str) -> str:
        """The node that a caller means: `n2`, or `2`. Raises `Refused(NOT_FOUND)`."""
        name = f"n{named}" if named.isdigit() else named
        if name not in self.names:
            hint = f"there are {', '.join(self.names)}"
            raise Refused(NOT_FOUND, f"the lab has no node {named}", hint=hint)
        return name

    def layout(self, name: str) -> Layout:
        """Where a node keeps everything."""
        return Layout(self.root / name)

    def number(self, name: str) -> int:
        """The last number of a node's addresses."""
        return WITNESS_NUMBER if name == WITNESS else int(name.removeprefix("n"))

    def address(self, name: str, net: str = "mgmt") -> str:
        """A node's address in one of the networks."""
        return f"{subnet(net, self.net)}.{self.number(name)}"

    @property
    def host_address(self) -> str:
        """The machine's own, in the management network."""
        return f"{subnet('mgmt', self.net)}.{HOST_NUMBER}"

    def place(self, name: str) -> Place:
        """A node, as the founding of a cluster wants it."""
        return Place(
            self.layout(name),
            name,
            self.address(name),
            self.address(name, "storage"),
            witness=name == WITNESS,
        )

    def namespace(self, name: str) -> str:
        """The network namespace of a node, or of the `switch`."""
        return f"{self.base.prefix}-{name}"

    @property
    def host_link(self) -> str:
        """The machine's own link to the management network."""
        return f"{self.base.prefix}h"

    @property
    def file(self) -> Path:
        """Where the plan is kept."""
        return self.root / "lab.json"


def subnet(net: str, third: int) -> str:
    """The first three numbers of a network's addresses."""
    return f"10.{231 + NETS.index(net)}.{third}"


def load_plan(root: Path) -> LabPlan | None:
    """The plan of the lab under `root`; None: there is none."""
    file = root / "lab.json"
    return LabPlan.model_validate_json(file.read_text()) if file.exists() else None
