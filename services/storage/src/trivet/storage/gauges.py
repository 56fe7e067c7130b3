"""The storage service's own figures: the room of pools, and how replicas are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.metrics import Read, Reading


def gauges(pools: Collection[Pool], volumes: Collection[Volume]) -> Read:
    """What a scrape reads."""

    def read() -> Iterator[Reading]:
        for pool in pools.list():
            of_pool = {"pool": pool.meta.name}
            text = "Bytes that are promised to volumes"
            yield Reading("trivet_pool_claimed_bytes", text, pool.status.claimed_bytes, of_pool)
            for usage in pool.status.usage:
                labels = {**of_pool, "node": usage.node}
                yield Reading("trivet_pool_size_bytes", "Size of members", usage.size_bytes, labels)
                yield Reading("trivet_pool_used_bytes", "Bytes taken", usage.used_bytes, labels)
        states = Counter(r.state.value for v in volumes.list() for r in v.status.replicas)
        for state, count in sorted(states.items()):
            yield Reading("trivet_replicas", "Replicas, by state", count, {"state": state})

    return read
