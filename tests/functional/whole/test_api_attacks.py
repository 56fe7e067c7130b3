"""Who may not is refused, over the real gateway and the real security service, and it is audited.

One table: what is tried with which token, what is answered. A token that loses its right does so
at once where the event of that reaches the gateway, and within `token_cache_s` where it does
not; both are tried.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trivet.gateway import identity
from trivet.gateway.limits import Limits
from trivet.testing.security_world import until

VM = "/v1/projects/red/vms"
UNBOUND = Limits(rate_per_s=1e9, rate_burst=10**9, denials_per_s=1e9, denials_burst=10**9)


async def token_of(node: Any, user: str, *roles: dict[str, str], **spec: Any) -> str:
    """Make a user and its token; returns the secret."""
    made = await node.http.post(
        "/v1/users", json={"meta": {"name": user}, "spec": {"roles": roles}}
    )
    assert made.status_code == 201, made.text
    body = {"meta": {"name": f"{user}-token"}, "spec": {"user": user, **spec}}
    made = await node.http.post("/v1/tokens", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["secret"])


async def ask(
    node: Any, bearer: str | None, method: str = "GET", path: str = VM, **more: Any
) -> Any:
    headers = {"Authorization": f"Bearer {bearer}" if bearer is not None else "none"}
    return await node.http.request(method, path, headers=headers, **more)


async def audited(node: Any) -> list[tuple[str, str, str]]:
    """Who was refused what, with which code."""
    page = (await node.http.get("/v1/audit?limit=1000")).json()["records"]
    entries = [record["entry"] for record in page]
    return [(e["user"], e["op"], e["outcome"]) for e in entries if e["outcome"] != "ok"]


@pytest.fixture
async def projects(node: Any) -> Any:
    for name in ("red", "blue"):
        await node.settled("/v1/projects", meta={"name": name}, spec={})
    return node


async def test_who_may_not_is_refused_and_audited(projects: Any) -> None:
    node = projects
    member = {"role": "member", "project": "red"}
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    red = await token_of(node, "red", member)
    blue = await token_of(node, "blue", {"role": "member", "project": "blue"})
    viewer = await token_of(node, "viewer", {"role": "viewer", "project": "red"})
    narrow = await token_of(node, "narrow", member, permissions=["compute.vm.list"])
    expired = await token_of(node, "expired", member, expires_at=soon)
    assert (await ask(node, red)).status_code == 200

    async def expired_now() -> bool:
        return bool((await ask(node, expired)).status_code == 401)

    await until(expired_now)
    body = {"meta": {"name": "x"}, "spec": {}}
    create = {"method": "POST", "json": body}
    cases: list[tuple[str | None, dict[str, Any], int]] = [
        (None, {}, 401),
        ("garbage", {}, 401),
        (f"{red}x", {}, 401),
        (red[:-1] + ("a" if red[-1] != "a" else "b"), {}, 401),
        (expired, {}, 401),
        (blue, {}, 403),
        (blue, create, 403),
        (viewer, {}, 200),
        (viewer, create, 403),
        (viewer, {"method": "DELETE", "path": f"{VM}/x"}, 403),
        (narrow, {}, 200),
        (narrow, create, 403),
        (narrow, {"path": "/v1/projects/red/volumes"}, 403),
        (red, {"path": "/v1/users"}, 403),
        (red, {"path": "/v1/tokens", **create}, 403),
        (red, {"path": "/v1/audit"}, 403),
        (red, {"path": "/v1/projects/blue/vms"}, 403),
    ]
    for bearer, tried, status in cases:
        reply = await ask(node, bearer, **tried)
        assert reply.status_code == status, (tried, reply.text)
        if status != 200:
            assert reply.headers["content-type"] == "application/problem+json"
    refused = sum(status != 200 for _, _, status in cases)

    async def all_told() -> bool:
        return len(await audited(node)) >= refused

    await until(all_told)
    told = await audited(node)
    assert ("blue", "vm.create", "auth.forbidden") in told
    assert ("anonymous", "vm.list", "auth.unauthenticated") in told
    assert ("red", "token.create", "auth.forbidden") in told
    assert (await node.http.post("/v1/audit:verify")).json()["intact"]


@pytest.mark.parametrize(
    "change",
    [
        ("DELETE", "/v1/tokens/red-token", None),
        ("PATCH", "/v1/users/red", {"spec": {"disabled": True}}),
        ("PATCH", "/v1/users/red", {"spec": {"roles": []}}),
        ("DELETE", "/v1/users/red", None),
        ("POST", "/v1/tokens/red-token:rotate", None),
    ],
    ids=["revoked", "disabled", "roles taken", "deleted", "rotated"],
)
async def test_what_is_taken_is_gone_at_once(make_node: Any, tmp_path: Path, change: Any) -> None:
    async with make_node(tmp_path, replace(UNBOUND, identity_cache_s=3600.0)) as node:
        await node.settled("/v1/projects", meta={"name": "red"}, spec={})
        await _taken(node, change)


async def _taken(node: Any, change: Any) -> None:
    red = await token_of(node, "red", {"role": "member", "project": "red"})
    assert (await ask(node, red)).status_code == 200
    method, path, body = change
    reply = await node.http.request(method, path, json=body)
    assert reply.status_code == 200, reply.text

    async def gone() -> bool:
        return bool((await ask(node, red)).status_code in (401, 403))

    # By the event: in this node the cache alone would keep it for an hour.
    await until(gone)


async def test_a_revoked_token_ends_within_the_cache_where_no_event_comes(
    make_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity.Identities, "on_event", lambda self, subject: None)
    async with make_node(tmp_path, replace(UNBOUND, identity_cache_s=1.0)) as node:
        await node.settled("/v1/projects", meta={"name": "red"}, spec={})
        red = await token_of(node, "red", {"role": "member", "project": "red"})
        assert (await ask(node, red)).status_code == 200
        await node.http.delete("/v1/tokens/red-token")

        async def gone() -> bool:
            return bool((await ask(node, red)).status_code == 401)

        await until(gone)
