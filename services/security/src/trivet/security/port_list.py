"""Which ports stand behind which group, asked of the network service."""

from __future__ import annotations

from collections import Counter

from trivet.contracts.endpoint import ListRequest
from trivet.contracts.network.endpoints.ports import CRUD
from trivet.contracts.network.port import Port
from trivet.runtime.call import Client

PAGE = 1000


async def ports_of(client: Client, project: str | None) -> list[Port]:
    """All ports of a project (None: of all).

    Raises what the call raises: who can't be asked has not said that there are none.
    """
    ports: list[Port] = []
    cursor = None
    while True:
        page = await client.call(CRUD.list, ListRequest(project=project, limit=PAGE, cursor=cursor))
        ports += page.items
        cursor = page.cursor
        if cursor is None:
            return ports


async def ports_behind(client: Client, project: str | None) -> Counter[tuple[str, str]]:
    """How many ports stand behind each group, by (project, name); raises as `ports_of`."""
    counts: Counter[tuple[str, str]] = Counter()
    for port in await ports_of(client, project):
        counts.update((port.meta.project or "", name) for name in port.spec.security_groups)
    return counts
