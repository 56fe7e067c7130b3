"""How many VMs a second become ready, asked for 20 at a time: the control plane alone.

The engines are fakes, so that nothing but Trivet is measured; all else is real: REST, the bus, a
store that fsyncs each write, the volume's and port's records, their claims, and the events.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from bench.fakenode import FakeNode, fake_node
from bench.load import Answer, run_load
from bench.measure import Results, ms, percentile, say

WIDE = 20
COUNT = 300
PATH = "/v1/projects/default/vms"


def vm_document(number: int) -> dict[str, Any]:
    """A VM with a disk and a card."""
    spec = {
        "vcpus": 1,
        "memory_mib": 128,
        "disks": [{"name": "root", "size_gib": 1}],
        "nics": [{"network": "default"}],
    }
    return {"meta": {"name": f"vm-{number}"}, "spec": spec}


async def make_ground(node: FakeNode) -> None:
    """The pool and the network that the VMs are made on."""
    pool = {"meta": {"name": "default"}, "spec": {"members": [{"node": "n1", "file_gib": 1000}]}}
    network = {"meta": {"name": "default"}, "spec": {"subnets": ["10.0.0.0/16"]}}
    asked = [
        ("POST", "/v1/pools?wait=30", pool),
        ("POST", "/v1/projects/default/networks?wait=30", network),
    ]
    await run_load(node.port, node.token, asked, wide=1, good=_ready)


def _ready(answer: Answer) -> bool:
    return answer.status == 201 and answer.json()["status"]["phase"] == "ready"


async def measure(count: int, wide: int) -> Results:
    """Make, then delete, `count` VMs."""
    async with fake_node() as node:
        await make_ground(node)
        creates = [("POST", f"{PATH}?wait=60", vm_document(n)) for n in range(count)]
        before = node.cpu_seconds()
        made = await run_load(node.port, node.token, creates, wide=wide, good=_ready)
        after = node.cpu_seconds()
        say(f"{made.per_s:.1f} creates a second")
    figures = {
        "creates_per_s": made.per_s,
        "create_p50_ms": ms(percentile(made.seconds, 50)),
        "create_p99_ms": ms(percentile(made.seconds, 99)),
    }
    cpu = {name: round((after[name] - before[name]) / count * 1000, 2) for name in before}
    figures["cpu_ms_a_create"] = sum(cpu.values())
    return Results(figures, {"count": count, "wide": wide, "cpu_ms_a_create": cpu})


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench create-rate", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--wide", type=int, default=WIDE)
    chosen = parser.parse_args(arguments)
    return asyncio.run(measure(chosen.count, chosen.wide))
