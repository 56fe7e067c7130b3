"""How long a killed compute service needs, with 10,000 VMs, until it has judged all of them.

While it is down one more VM is stored, whose key is the last: the leader goes through VMs in
order, and looks at those of which the store says that something is left to do. So once it has told
something of that one it has judged the others. From exec to there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

from bench.create_rate import PATH, make_ground
from bench.fakenode import FakeNode, fake_node
from bench.load import run_load
from bench.measure import Results, median, say
from bench.stored import new_vm, store_settled_vms, store_vm

COUNT = 10_000
ROUNDS = 3
WITHIN_S = 120.0


async def _restart(node: FakeNode, number: int) -> float:
    """One restart; seconds until it has converged."""
    name = f"zz-last-{number}"
    node.kill("compute")
    async with node.bucket("compute") as store:
        await store_vm(store, new_vm(name))
    begun = time.perf_counter()
    node.start("compute")
    while time.perf_counter() - begun < WITHIN_S:
        asked = [("GET", f"{PATH}/{name}", None)]
        try:
            load = await run_load(node.port, node.token, asked, wide=1)
        except ExceptionGroup:  # nobody answers yet
            continue
        if json.loads(load.last)["status"]["node"]:
            return time.perf_counter() - begun
        await asyncio.sleep(0.02)
    raise TimeoutError(f"not converged within {WITHIN_S:.0f} s; the logs: {node.folder}")


async def measure(count: int) -> Results:
    """The figures of one run."""
    async with fake_node(cpus=4096) as node:
        await make_ground(node)
        await store_settled_vms(node, count)
        say(f"{count} VMs are in store")
        taken = [await _restart(node, number) for number in range(ROUNDS)]
    figures = {"converged_s": median(taken), "worst_s": max(taken)}
    return Results(figures, {"in_store": count, "seconds": [round(s, 2) for s in taken]})


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench restart", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    return asyncio.run(measure(parser.parse_args(arguments).count))
