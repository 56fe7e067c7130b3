"""Somebody sets the clock of a running node by an hour: leases, epochs, tokens and waits hold.

Only what is told as a time may change with it (a token expires when the clock says so).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trivet.gateway.limits import Limits
from trivet.runtime.service_status import LEAD
from trivet.testing.memory_bus import MemoryBus

HOUR_S = 3600.0
VMS = "/v1/projects/default/vms"
SPEC = {"vcpus": 1, "disks": [{"size_gib": 1}], "nics": [{"network": "lan"}]}
UNBOUND = Limits(
    rate_per_s=1e9, rate_burst=10**9, denials_per_s=1e9, denials_burst=10**9, identity_cache_s=0.0
)


async def grounded(node: Any) -> Any:
    """A node with a running VM."""
    members = [{"node": "n1", "file_gib": 10}]
    await node.settled("/v1/pools", meta={"name": "default"}, spec={"members": members})
    lan = {"subnets": ["10.9.0.0/24"]}
    await node.settled("/v1/projects/default/networks", meta={"name": "lan"}, spec=lan)
    return await node.settled(VMS, meta={"name": "before"}, spec=SPEC)


async def leases(node: Any) -> dict[str, str]:
    """Who leads, by service."""
    found = {}
    for service in ("compute", "storage", "network", "security"):
        entry = await node.harness.store(service).get(f"lease.{LEAD}")
        assert entry is not None
        found[service] = entry.value.partition(b'"turn"')[0].decode()
    return found


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
async def test_all_goes_on(node: Any, step_s: float) -> None:
    before = await grounded(node)
    led_by = await leases(node)
    node.harness.clock.set_ahead(step_s)

    after = await node.settled(VMS, meta={"name": "after"}, spec=SPEC)
    assert after["status"]["power"] == "running"
    for name in ("before", "after"):
        reply = await node.http.post(f"{VMS}/{name}:stop?wait=30", json={"grace_s": 30})
        assert reply.json()["status"]["power"] == "stopped", reply.text
        reply = await node.http.post(f"{VMS}/{name}:start?wait=30")
        assert reply.json()["status"]["power"] == "running", reply.text
    again = (await node.http.get(f"{VMS}/before")).json()
    assert again["status"]["epoch"] == before["status"]["epoch"] + 1
    for name in ("before", "after"):
        reply = await node.http.delete(f"{VMS}/{name}?wait=30")
        assert reply.status_code == 200, reply.text
        assert (await node.http.get(f"{VMS}/{name}")).status_code == 404
    assert (await node.http.get("/v1/projects/default/volumes")).json()["items"] == []
    assert (await node.http.get("/v1/projects/default/ports")).json()["items"] == []
    assert await leases(node) == led_by
    assert (await node.http.post("/v1/audit:verify")).json()["intact"]


async def test_every_event_is_told_once(node: Any) -> None:
    await grounded(node)
    for number, step_s in enumerate((HOUR_S, -HOUR_S, 0.0)):
        node.harness.clock.set_ahead(step_s)
        await node.settled(VMS, meta={"name": f"v{number}"}, spec=SPEC)
    bus, told = MemoryBus(node.harness.broker), []
    last = await bus.last_event_seq()
    async for message in bus.events("trivet.evt.compute.vm.>", since_seq=1):
        told.append(message.data)
        if message.seq >= last:
            break
    created = [data for data in told if b"trivet.compute.vm.created" in data]
    assert len(created) == 4
    assert len({data.partition(b'"source"')[0] for data in told}) == len(told)


async def test_a_token_ends_when_the_clock_says_so(make_node: Any, tmp_path: Path) -> None:
    async with make_node(tmp_path, UNBOUND) as node:
        clock = node.harness.clock
        ends = clock.now() + timedelta(seconds=HOUR_S / 2)
        spec = {"user": "admin", "expires_at": ends.isoformat()}
        made = await node.http.post("/v1/tokens", json={"meta": {"name": "half"}, "spec": spec})
        assert made.status_code == 201, made.text
        bearer = {"Authorization": f"Bearer {made.json()['secret']}"}
        for ahead_s, status in ((0.0, 200), (-HOUR_S, 200), (HOUR_S, 401), (0.0, 200)):
            clock.set_ahead(ahead_s)
            reply = await node.http.get("/v1/nodes", headers=bearer)
            assert reply.status_code == status, (ahead_s, reply.text)
            assert (await node.http.get("/v1/nodes")).status_code == 200, "one without an end"
