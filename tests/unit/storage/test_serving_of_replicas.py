"""What of a node's is served: only what the store speaks of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.storage.test_replication_domain import volume

from trivet.contracts.errors import Retry
from trivet.storage.node.serving import Serving


@pytest.mark.parametrize(("disk", "served"), [("d1", True), ("d2", False)])
async def test_a_file_on_another_disk_is_not_the_replica(disk: str, served: bool) -> None:
    """It was left on a disk that was away, while the replica was made again."""
    held = volume("good", "good")
    first = held.status.replicas[0].model_copy(update={"disk": "d1"})
    held = held.with_status(replicas=(first, *held.status.replicas[1:]))

    async def fresh(key: str) -> Any:
        return held

    async def replicas(id_: str) -> Any:
        return (SimpleNamespace(disk=disk),)

    async def serve(*asked: Any, **how: Any) -> Any:
        return SimpleNamespace(model_copy=lambda update: update)

    volumes = SimpleNamespace(by_id=lambda id_: held, key_of=lambda v: "k", fresh=fresh)
    engine = SimpleNamespace(replicas=replicas, serve=serve)
    serving = Serving(cast(Any, volumes), cast(Any, engine), "n1", "127.0.0.1")
    if served:
        assert await serving.serve(held.meta.id, 3) == {"node": "n1"}
        return
    with pytest.raises(Retry, match="lies on d1, not on d2"):
        await serving.serve(held.meta.id, 3)
