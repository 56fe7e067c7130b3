"""What the service's bootstrap made, for the handlers of its operations."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.network.holdings import Holdings
from trivet.network.node.agent import NodeAgent
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime


@dataclass(frozen=True)
class Parts:
    """The parts of a network service."""

    runtime: Runtime
    networks: Collection[Network]
    ports: Collection[Port]
    holdings: Holdings
    agent: NodeAgent
