"""What a request costs: GET of one VM and a list of 100 among 10,000 in store, and a create.

The ratio is to a bare FastAPI handler that returns the same bytes from the same kind of server,
loaded in turn with it by the same client.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.create_rate import PATH, make_ground, vm_document
from bench.fakenode import FakeNode, fake_node, free_port
from bench.load import Connection, Load, run_load
from bench.measure import Results, median, ms, percentile, say
from bench.stored import store_settled_vms

COUNT = 10_000
ROUNDS = 5
BARE = """
import sys, uvicorn
from pathlib import Path
from fastapi import FastAPI, Response
app, body = FastAPI(), Path(sys.argv[2]).read_bytes()
@app.get("/vm/{name}")
async def vm(name: str) -> Response:
    return Response(body, media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


@asynccontextmanager
async def bare_server(folder: Path, body: bytes) -> AsyncIterator[int]:
    """The handler to compare with; yields its port."""
    port = free_port()
    file = folder / "bare.json"
    file.write_bytes(body)
    process = await asyncio.to_thread(
        subprocess.Popen, (sys.executable, "-c", BARE, str(port), str(file))
    )
    try:
        while True:
            try:
                first = Connection(port, None)
                await first.open()
                first.close()
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


async def _gets(node: FakeNode, bare_port: int, names: list[str]) -> dict[str, list[Load]]:
    """Ours and the bare one's, in turn: one at a time for latency, 16 wide for throughput."""
    ours = [("GET", f"{PATH}/{name}", None) for name in names]
    bare = [("GET", f"/vm/{name}", None) for name in names]
    found: dict[str, list[Load]] = {"one": [], "wide": [], "bare_wide": []}
    for _ in range(ROUNDS):
        found["one"].append(await run_load(node.port, node.token, ours[:200], wide=1))
        found["wide"].append(await run_load(node.port, node.token, ours, wide=16))
        found["bare_wide"].append(await run_load(bare_port, None, bare, wide=16))
    return found


async def measure(count: int) -> Results:
    """The figures of one run."""
    async with fake_node(cpus=4096) as node:
        await make_ground(node)
        await store_settled_vms(node, count)
        await node.quiet("compute")
        say(f"{count} VMs are in store, and looked at")
        names = [f"stored-{n:05}" for n in range(0, count, max(1, count // 1000))]
        one = await run_load(node.port, node.token, [("GET", f"{PATH}/{names[0]}", None)], wide=1)
        assert one.seconds
        body = one.last
        async with bare_server(node.folder, body) as bare_port:
            gets = await _gets(node, bare_port, names)
        listing: list[tuple[str, str, Any]] = [("GET", f"{PATH}?limit=100", None)] * 60
        lists = await run_load(node.port, node.token, listing, wide=1)
        creates = [("POST", PATH, vm_document(n)) for n in range(100)]
        made = await run_load(node.port, node.token, creates, wide=1)
    singles = [s for load in gets["one"] for s in load.seconds]
    ratios = [a.per_s / b.per_s for a, b in zip(gets["wide"], gets["bare_wide"], strict=True)]
    figures = {
        "get_p50_ms": ms(percentile(singles, 50)),
        "get_p99_ms": ms(percentile(singles, 99)),
        "get_ratio": median(ratios),
        "gets_per_s": median([load.per_s for load in gets["wide"]]),
        "list_p50_ms": ms(percentile(lists.seconds, 50)),
        "create_p50_ms": ms(percentile(made.seconds, 50)),
        "create_p99_ms": ms(percentile(made.seconds, 99)),
    }
    raw = {
        "in_store": count,
        "get_ratios": [round(r, 3) for r in ratios],
        "bare_per_s": [round(load.per_s) for load in gets["bare_wide"]],
    }
    return Results(figures, raw)


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench api", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    return asyncio.run(measure(parser.parse_args(arguments).count))
