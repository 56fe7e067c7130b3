"""How the cluster is: the bus's streams, the alarms that are raised, and what is not as asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trivet.client import Client
from trivet.contracts.alarm import AlarmState, Severity
from trivet.contracts.compute.endpoints.alarms import CRUD as ALARMS
from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.endpoint import Endpoint, ListRequest
from trivet.contracts.errors import TrivetError
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.resource import Phase
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.host import bus_admin
from trivet.host.doctor import Finding
from trivet.host.doctor_instance import runs
from trivet.host.layout import Layout
from trivet.host.readiness import gateway_health, gateway_url
from trivet.runtime.settings import Settings

KINDS = (NODES, POOLS, VOLUMES, NETWORKS, PORTS, IMAGES, VMS)
PAGE = 1000
NAMED = 5
BUS_WITHIN_S = 8.0


async def streams(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """How the bus keeps its streams; asked as its administrator, who this node's root is."""
    if not await runs(layout, settings):
        return []
    try:
        async with asyncio.timeout(BUS_WITHIN_S):
            told = await bus_admin.streams(settings)
    except TimeoutError:
        hint = f"see {layout.log_file('nats')}"
        url = settings.bus.urls[0]
        return [Finding("bus", "streams", False, f"the bus at {url} does not answer", hint)]
    return [_stream(name, info) for name, info in told.items()]


def _stream(name: str, info: dict[str, Any] | None) -> Finding:
    if info is None:
        return Finding("bus", name, False, "is not there", "`sudo ./trivet up` makes it")
    state, cluster = info["state"], info.get("cluster") or {}
    replicas = cluster.get("replicas") or []
    late = [r["name"] for r in replicas if r.get("offline") or not r.get("current", True)]
    says = f"{state['messages']} messages, {state['bytes'] / 2**20:.1f} MiB"
    if replicas:
        says += f", {len(replicas) + 1} copies, led by {cluster.get('leader') or 'nobody'}"
    if late:
        says += f"; not current: {', '.join(late)}"
    leaderless = bool(replicas) and not cluster.get("leader")
    return Finding("bus", name, not late and not leaderless, says)


async def cluster(layout: Layout, settings: Settings) -> Sequence[Finding]:
    """Alarms, and resources that are not as asked; as the first administrator, through the API."""
    if not layout.token_file.exists():
        return []
    if await asyncio.to_thread(gateway_health, settings, layout) is None:
        return []  # Told already.
    token = layout.token_file.read_text().strip()
    return await asyncio.to_thread(_through_api, gateway_url(settings), token, layout)


def _through_api(url: str, token: str, layout: Layout) -> list[Finding]:
    with Client(url, token, layout.ca_file, retry_s=0) as client:
        found = _alarms(client)
        for crud in KINDS:
            try:
                found.append(_as_asked(client, crud.list))
            except TrivetError as error:
                found.append(Finding("cluster", crud.kind.plural, False, error.detail))
    return found


def _alarms(client: Client) -> list[Finding]:
    try:
        page = client.call(ALARMS.list, ListRequest(limit=PAGE, label="state=raised"))
    except TrivetError as error:
        return [Finding("cluster", "alarms", False, error.detail, error.hint or "")]
    raised = [a for a in page.items if a.status.state is AlarmState.RAISED]
    found = [
        Finding(
            "cluster",
            f"alarm {alarm.status.rule}",
            None if alarm.status.severity is Severity.INFO else False,
            alarm.status.cause,
            alarm.status.remedy,
        )
        for alarm in raised
    ]
    return found or [Finding("cluster", "alarms", True, "none is raised")]


def _as_asked(client: Client, endpoint: Endpoint[Any, Any]) -> Finding:
    """How many of a kind are there, and which are not ready."""
    items: list[Any] = []
    request = ListRequest(limit=PAGE)
    while True:
        page = client.call(endpoint, request)
        items += page.items
        if page.cursor is None:
            break
        request = request.model_copy(update={"cursor": page.cursor})
    phases = Counter(item.status.phase.value for item in items)
    bad = [i for i in items if i.status.phase in (Phase.FAILED, Phase.DEGRADED, Phase.UNKNOWN)]
    says = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items())) or "none"
    if bad:
        some = ", ".join(item.meta.name for item in bad[:NAMED])
        says += f": {some}{', ...' if len(bad) > NAMED else ''}"
    assert endpoint.kind is not None
    return Finding("cluster", endpoint.kind.plural, not bad, says)
