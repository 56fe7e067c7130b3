"""The services together: what one asks of the other is what the other answers."""

from __future__ import annotations

from typing import Any


async def test_a_vm_from_nothing(node: Any) -> None:
    assert (await node.http.get("/v1/health")).json()["status"] == "ok"
    members = [{"node": "n1", "file_gib": 10}]
    await node.settled("/v1/pools", meta={"name": "default"}, spec={"members": members})
    net = "/v1/projects/default/networks"
    await node.settled(net, meta={"name": "lan"}, spec={"subnets": ["10.9.0.0/24"]})
    spec = {"vcpus": 1, "disks": [{"size_gib": 1}], "nics": [{"network": "lan"}]}
    vm = await node.settled("/v1/projects/default/vms", meta={"name": "web"}, spec=spec)
    assert vm["status"]["power"] == "running", vm
