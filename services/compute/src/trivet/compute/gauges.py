"""The compute service's own figures: what nodes have and have promised, and their VMs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Vm
from trivet.runtime.collection import Collection
from trivet.runtime.metrics import Read, Reading

_MIB = 1024 * 1024


def gauges(nodes: Collection[Node], vms: Collection[Vm]) -> Read:
    """What a scrape reads."""

    def read() -> Iterator[Reading]:
        for node in nodes.list():
            labels, status = {"node": node.meta.name}, node.status
            for name, text, value in (
                ("allocatable_vcpus", "Virtual CPUs it may promise", status.allocatable_vcpus),
                ("used_vcpus", "Virtual CPUs it has promised", status.used_vcpus),
                (
                    "allocatable_memory_bytes",
                    "Memory it may promise",
                    status.allocatable_memory_mib * _MIB,
                ),
                ("used_memory_bytes", "Memory it has promised", status.used_memory_mib * _MIB),
            ):
                yield Reading(f"trivet_node_{name}", text, value, labels)
        powers = Counter((vm.status.node or "", vm.status.power.value) for vm in vms.list())
        for (name, power), count in sorted(powers.items()):
            yield Reading(
                "trivet_vms", "VMs, by node and power", count, {"node": name, "power": power}
            )

    return read
