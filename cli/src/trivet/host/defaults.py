"""What a new one-node cluster begins with: a pool and a network, made through the REST API.

They are ordinary resources that an operator may change or delete; they are made only while the
instance has never had them, so that what was deleted stays deleted.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from trivet.host.failure import failed
from trivet.host.hypervisor import machine_id
from trivet.host.layout import Layout
from trivet.host.readiness import gateway_url
from trivet.runtime.settings import Settings

PROJECT = "default"
SUBNET_V4 = "10.77.0.0/24"
SMALLEST_POOL_GIB = 4
LARGEST_POOL_GIB = 1024
SHARE_OF_FREE_SPACE = 0.6
SETTLE_S = 60
DONE = "defaults-made"


def pool_size_gib(free_bytes: int) -> int:
    """The size of the development pool's sparse file, from the free space where it lies."""
    share = int(free_bytes * SHARE_OF_FREE_SPACE) // 2**30
    return max(SMALLEST_POOL_GIB, min(share, LARGEST_POOL_GIB))


def subnet_v6(node: str, machine_id: str) -> str:
    """A unique local /64 (RFC 4193) that this machine would choose again."""
    digest = hashlib.sha256(f"{machine_id}/{node}".encode()).hexdigest()
    return f"fd{digest[:2]}:{digest[2:6]}:{digest[6:10]}:77::/64"


def file_members(nodes: Sequence[str], free_bytes: int) -> list[dict[str, Any]]:
    """An image file on every node; `free_bytes` is what each has."""
    size_gib = pool_size_gib(free_bytes)
    return [{"node": node, "file_gib": size_gib} for node in nodes]


def pool_document(members: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The default pool."""
    return {"meta": {"name": "default"}, "spec": {"members": list(members)}}


def network_document(node: str, machine_id: str) -> dict[str, Any]:
    """The default network: both families, and out to the world by address translation."""
    subnets = [SUBNET_V4, subnet_v6(node, machine_id)]
    meta = {"name": "default", "project": PROJECT}
    return {"meta": meta, "spec": {"subnets": subnets, "external": True}}


def made_defaults(layout: Layout) -> bool:
    """Whether the instance has had its defaults."""
    return (layout.state / DONE).exists()


def ensure_defaults(
    layout: Layout, settings: Settings, token: str, members: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Make what is missing, through the gateway of `settings`; what was made, in words.
    `members`: what the pool is made of (none: an image file on the gateway's own node). Raises
    `Fatal` if the API refuses."""
    if made_defaults(layout):
        return []
    alone = file_members([settings.node], shutil.disk_usage(layout.state).free)
    wanted = (
        ("/v1/pools", "pool default", pool_document(members or alone)),
        (
            f"/v1/projects/{PROJECT}/networks",
            "network default",
            network_document(settings.node, machine_id()),
        ),
    )
    made = []
    with httpx.Client(
        base_url=gateway_url(settings),
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=str(layout.ca_file)),
        timeout=SETTLE_S + 30,
        trust_env=False,
    ) as client:
        for path, name, document in wanted:
            if _create(client, path, name, document):
                made.append(name)
    (layout.state / DONE).touch()
    return made


def _create(client: httpx.Client, path: str, name: str, document: dict[str, Any]) -> bool:
    try:
        answer = client.post(path, json=document, params={"wait": SETTLE_S})
    except httpx.HTTPError as error:
        raise failed(f"{name} could not be made: {error}", hint="run it again") from error
    problem = answer.json() if answer.headers.get("content-type", "").endswith("json") else {}
    if answer.status_code == httpx.codes.CONFLICT and problem.get("code", "").endswith("taken"):
        return False
    if answer.is_error:
        detail = problem.get("detail", answer.text[:200])
        raise failed(f"{name} could not be made: {detail}", hint=problem.get("hint"))
    return True
