"""Making the buckets and the event stream: done by the administrator, at `trivet up`.

Services have no right to make or change streams. Repeating is safe: what is there is brought
to the configuration written here. A cluster's servers need some seconds to be ready, so each
step is tried until it is or the time is over.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from trivet.contracts.errors import Retry
from trivet.contracts.event import STREAM, SUBJECT_PREFIX
from trivet.runtime.bus import DEDUPE_WINDOW_S
from trivet.runtime.nats_config import ANSWERS_BUCKET, BUCKET_OWNERS, stream_of
from trivet.runtime.nats_link import NOT_FOUND, ApiError, Link, translate

log = logging.getLogger(__name__)

EVENTS_MAX_AGE_S = 7 * 24 * 3600
EVENTS_MAX_BYTES = 512 * 1024 * 1024
BUCKET_DEDUPE_S = 120
ANSWERS_MAX_AGE_S = 24 * 3600
ANSWERS_MAX_BYTES = 256 * 1024 * 1024
READY_TIMEOUT_S = 60.0
AGAIN_S = 0.5
_NS = 1_000_000_000


def stream_configs(replicas: int) -> list[dict[str, Any]]:
    """The configurations of all streams."""
    buckets = (_bucket(owner, replicas) for owner in BUCKET_OWNERS)
    return [_events(replicas), *buckets, _answers(replicas)]


def _events(replicas: int) -> dict[str, Any]:
    return {
        "name": STREAM,
        "subjects": [f"{SUBJECT_PREFIX}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "num_replicas": replicas,
        "max_age": EVENTS_MAX_AGE_S * _NS,
        "max_bytes": EVENTS_MAX_BYTES,
        "duplicate_window": int(DEDUPE_WINDOW_S * _NS),
        "deny_delete": True,
        "deny_purge": True,
    }


def _bucket(owner: str, replicas: int) -> dict[str, Any]:
    return {
        "name": stream_of(owner),
        "subjects": [f"$KV.{owner}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "duplicate_window": BUCKET_DEDUPE_S * _NS,
        # Markers of deletions carry a time to live, so that they don't pile up.
        "allow_msg_ttl": True,
        # Reads go to the leader: a follower may be behind.
        "allow_direct": False,
        "deny_delete": True,
    }


def _answers(replicas: int) -> dict[str, Any]:
    """A bucket whose keys go by themselves. Full, it takes no more: what was promised to be
    kept is not pushed out by what comes."""
    return {
        **_bucket(ANSWERS_BUCKET, replicas),
        "max_age": ANSWERS_MAX_AGE_S * _NS,
        "max_bytes": ANSWERS_MAX_BYTES,
    }


async def provision(link: Link, replicas: int = 1, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Make what is missing and bring the rest up to date. Raises the last `Retry` when the
    servers are not ready in time, and at once what no waiting mends."""
    give_up = asyncio.get_running_loop().time() + timeout_s
    for config in stream_configs(replicas):
        while True:
            try:
                await _settle(link, config)
            except Retry as error:
                if asyncio.get_running_loop().time() > give_up:
                    raise
                log.info("%s: %s", config["name"], error)
                await asyncio.sleep(AGAIN_S)
            else:
                break


async def _settle(link: Link, config: dict[str, Any]) -> None:
    name = config["name"]
    try:
        try:
            found = await link.api(f"STREAM.INFO.{name}")
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            await link.api(f"STREAM.CREATE.{name}", config)
            log.info("made stream %s", name)
            return
        present = found["config"]
        if any(present.get(key) != value for key, value in config.items() if value is not False):
            await link.api(f"STREAM.UPDATE.{name}", {**present, **config})
            log.info("updated stream %s", name)
    except ApiError as error:
        raise translate(error, f"stream {name}") from error
