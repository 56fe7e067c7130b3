"""Which ports stand behind which group, asked of the network service."""

from __future__ import annotations

from collections import Counter

from trivet.contracts.endpoint import ListRequest
from trivet.contracts.network.endpoints.ports import CRUD
from trivet.runtime.call import Client

PAGE = 1000


async def ports_behind(client: Client, project: str | None) -> Counter[tuple[str, str]]:
    """How many ports stand behind each group, by (project, name); `project` None: of all.

    Raises what the call raises: who can't be asked has not said that there are none.
    """
    counts: Counter[tuple[str, str]] = Counter()
    cursor = None
    while True:
        request = ListRequest(project=project, limit=PAGE, cursor=cursor)
        page = await client.call(CRUD.list, request)
        for port in page.items:
            counts.update((port.meta.project, name) for name in port.spec.security_groups)
        cursor = page.cursor
        if cursor is None:
            return counts
