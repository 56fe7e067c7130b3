"""The server's configuration as text: who may do what on the bus, and where it keeps its files.

Pure: a `ServerPlan` in, the text of `nats-server.conf` out. Each service is a user with its own
key and the least it needs: its own bucket and no other, its own events, requests to others,
its own inbox. The administrator alone makes buckets and streams (`nats_provision`), and acts
only at `trivet up`.

`sync_interval: always` is what makes an acknowledgement mean "on disk". It is the reason why
older servers are refused: they take the setting for something else or drop it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivet.contracts.endpoint import SERVICES
from trivet.contracts.event import STREAM, SUBJECT_PREFIX

ADMIN = "admin"
IDENTITIES = (*SERVICES, ADMIN)
BUCKET_OWNERS = tuple(s for s in SERVICES if s != "gateway")
ANSWERS_BUCKET = "gateway"
"""Where the gateway keeps the answers of requests with an idempotency key, and nothing else."""

BEAT_PREFIX = "trivet.beat"
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
REPLY_WITHIN_S = 300
ROUTE_PING_INTERVAL = "2s"
ROUTE_PINGS_MISSED_MAX = 2


@dataclass(frozen=True)
class Tls:
    """Files for TLS; with `verify` clients must show a certificate of that authority."""

    certificate: Path
    key: Path
    authority: Path | None = None
    verify: bool = False


@dataclass(frozen=True)
class Cluster:
    """How servers find each other. `routes` are `nats-route://host:port` of all of them; with
    TLS, who connects must show a certificate of the cluster's authority."""

    name: str
    listen: str
    routes: tuple[str, ...]
    tls: Tls | None = None


@dataclass(frozen=True)
class ServerPlan:
    """One server. `listen` is `host:port`; `public_keys` maps identities to public nkeys, and
    `other_keys` does for each other node whose services may come here too."""

    name: str
    listen: str
    store_dir: Path
    public_keys: Mapping[str, str] = field(default_factory=dict)
    other_keys: tuple[Mapping[str, str], ...] = ()
    tls: Tls | None = None
    cluster: Cluster | None = None
    monitor: str | None = None
    pid_file: Path | None = None


def stream_of(bucket: str) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def permissions(identity: str) -> dict[str, Any]:
    """What an identity may publish and subscribe to."""
    if identity == ADMIN:
        return {"publish": [">"], "subscribe": [">"]}
    publish = [f"trivet.{service}.>" for service in SERVICES]
    publish += [f"{SUBJECT_PREFIX}.{identity}.>", f"{BEAT_PREFIX}.{identity}.>"]
    publish += _reads(STREAM)
    if identity in BUCKET_OWNERS:
        publish += [f"$KV.{identity}.>"]
        publish += _reads(stream_of(identity))
    if identity == ANSWERS_BUCKET:
        stream = stream_of(ANSWERS_BUCKET)
        publish += [f"$KV.{ANSWERS_BUCKET}.once.*", f"$JS.API.STREAM.MSG.GET.{stream}"]
        publish += [f"$JS.API.STREAM.INFO.{stream}"]
    return {
        "publish": {"allow": publish},
        "subscribe": {
            "allow": [f"_INBOX.{identity}.>", f"trivet.{identity}.>", f"{BEAT_PREFIX}.>"]
        },
        "allow_responses": {"max": 1, "expires": f"{REPLY_WITHIN_S}s"},
    }


def _reads(stream: str) -> list[str]:
    """What following a stream takes: its state, what its leader has as the newest, a consumer,
    and the flow control of one."""
    return [
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.FC.{stream}.>",
    ]


def server_config(plan: ServerPlan) -> str:
    """The text of the configuration file."""
    nodes = (plan.public_keys, *plan.other_keys)
    missing = [i for i in IDENTITIES if not any(i in keys for keys in nodes)]
    if missing:
        raise ValueError(f"no public key for {', '.join(missing)}")
    config: dict[str, Any] = {
        "server_name": plan.name,
        "listen": plan.listen,
        "max_payload": MAX_PAYLOAD_BYTES,
        "write_deadline": "10s",
        "ping_interval": "10s",
        "jetstream": {"store_dir": str(plan.store_dir), "sync_interval": "always"},
        "authorization": {
            "users": [
                {"nkey": keys[identity], "permissions": permissions(identity)}
                for keys in nodes
                for identity in IDENTITIES
                if identity in keys
            ]
        },
    }
    if plan.tls:
        config["tls"] = _tls(plan.tls)
    if plan.monitor:
        config["http"] = plan.monitor
    if plan.pid_file:
        config["pid_file"] = str(plan.pid_file)
    if plan.cluster:
        config["cluster"] = {
            "name": plan.cluster.name,
            "listen": plan.cluster.listen,
            "routes": list(plan.cluster.routes),
            # Every client is told all servers by its settings; what servers know of each other
            # is addresses that their certificates need not have.
            "no_advertise": True,
            # A node whose power is cut says no goodbye: its interest must not outlive it by
            # minutes, or requests are sent to where nobody is.
            "ping_interval": ROUTE_PING_INTERVAL,
            "ping_max": ROUTE_PINGS_MISSED_MAX,
            **({"tls": _tls(plan.cluster.tls)} if plan.cluster.tls else {}),
        }
    head = "# Made by `trivet up`; changes are overwritten.\n"
    return head + "".join(
        f"{key}: {json.dumps(value, indent=2)}\n" for key, value in config.items()
    )


def _tls(tls: Tls) -> dict[str, Any]:
    made: dict[str, Any] = {"cert_file": str(tls.certificate), "key_file": str(tls.key)}
    if tls.authority:
        made["ca_file"] = str(tls.authority)
    if tls.verify:
        made["verify"] = True
    return made
