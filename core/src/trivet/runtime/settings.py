"""Settings: one TOML file, overridden by `TRIVET_*`; an unknown key refuses to start.

Secrets are never values here, only paths of files that their owner alone can read.
"""

from __future__ import annotations

import difflib
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from trivet.contracts.errors import Fatal, code
from trivet.contracts.model import Model, Name

BAD_SETTINGS = code("settings.invalid", 500, "The settings can't be used")
DEFAULT_FILE = Path("/etc/trivet/trivet.toml")
ENV_PREFIX = "TRIVET_"
NOT_SETTINGS = (
    "TRIVET_SETTINGS",
    "TRIVET_CONFIG",
    "TRIVET_URL",
    "TRIVET_TOKEN",
    "TRIVET_ROOT",
    "TRIVET_LAB_ROOT",
    "TRIVET_CHECKOUT",
)


class BusSettings(Model):
    """Where the NATS servers are and how a service proves who it is (`<service>.nk` in
    `keys_dir`). `replicas`: copies of every bucket and of the event stream."""

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    keys_dir: Path = Path("/var/lib/trivet/keys")
    replicas: int = Field(default=1, ge=1, le=5)
    ca_file: Path | None = None


class ComputeSettings(Model):
    """`hypervisor`: a driver's name or `auto`. `import_dir`: files that images may come from.
    `stream_port`: where gateways of other nodes reach the consoles of this one (0: any free one);
    only with a certificate (`gateway.certificate`)."""

    hypervisor: str = "auto"
    import_dir: Path = Path("/var/lib/trivet/import")
    stream_port: int = Field(default=0, ge=0, le=65535)
    look_s: float = Field(default=30.0, gt=0)
    node_silent_s: float = Field(default=15.0, gt=0)


class StorageSettings(Model):
    """`engine`, `inspector`: a driver's name or `auto`. `address`: this node's in the storage
    network, where other nodes reach its replicas; None: the node's own.

    A node is silent after `node_silent_s` without a word. What is stale for `rebuild_after_s` is
    made anew on another host, `rebuilds_per_node` at once on each. A disk is warned of when its
    requests take `disk_slow_ms` on average, and isolated at `disk_isolate_ms`, over
    `disk_window_s`; and when it did not answer within `disk_stuck_s` in most of the window of
    13 looks. Replicas are read and compared each `scrub_every_s`, at most `scrub_bytes_per_s`.
    Each `balance_s` it is looked whether pools fill evenly.

    A host that does not greet for `replica_silent_s` loses its replicas in the graphs of this
    node; an attach waits for those that don't answer for `serve_s`. `resync_bytes_per_s` bounds
    each copy to a replica that is brought back (0: nothing does)."""

    engine: str = "auto"
    inspector: str = "auto"
    address: str | None = None
    look_s: float = Field(default=30.0, gt=0)
    claim_age_s: float = Field(default=120.0, gt=0)
    node_silent_s: float = Field(default=5.0, gt=0)
    rebuild_after_s: float = Field(default=600.0, ge=0)
    rebuilds_per_node: int = Field(default=2, ge=1, le=64)
    disk_slow_ms: float = Field(default=25.0, gt=0)
    disk_isolate_ms: float = Field(default=125.0, gt=0)
    disk_window_s: float = Field(default=180.0, gt=0)
    disk_stuck_s: float = Field(default=3.0, gt=0)
    balance_s: float = Field(default=60.0, gt=0)
    scrub_every_s: float = Field(default=1_209_600.0, gt=0)
    scrub_bytes_per_s: int = Field(default=50_000_000, ge=1_000_000)
    replica_silent_s: float = Field(default=2.5, gt=0)
    serve_s: float = Field(default=2.0, gt=0)
    resync_bytes_per_s: int = Field(default=0, ge=0)


class NetworkSettings(Model):
    """Drivers by name or `auto`. `vtep`: this node's address in the tunnel network. `linger_s`: how
    long a network without a port here stays, for the next one to find it made."""

    switch: str = "auto"
    gateway: str = "auto"
    dhcp: str = "auto"
    vtep: str | None = None
    look_s: float = Field(default=30.0, gt=0)
    claim_age_s: float = Field(default=120.0, gt=0)
    linger_s: float = Field(default=300.0, ge=0)


class SecuritySettings(Model):
    """`bootstrap_token_file` holds the first administrator's token (0600)."""

    firewall: str = "auto"
    identity: tuple[str, ...] = ()
    bootstrap_token_file: Path | None = None
    look_s: float = Field(default=30.0, gt=0)


class GatewaySettings(Model):
    """Where the REST API listens, with which certificate, and its bounds.

    Sizes in bytes, times in seconds. `rate_*` is for each token, `denials_*` for each address
    that shows no valid one; a burst is what may come at once after a silence.
    `ca_file`: the authority that other nodes' certificates are of.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8443, ge=1, le=65535)
    certificate: Path | None = None
    private_key: Path | None = None
    ca_file: Path | None = None
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    body_s: float = Field(default=20.0, gt=0)
    max_head_bytes: int = Field(default=32_768, ge=1024)
    max_headers: int = Field(default=100, ge=16)
    head_s: float = Field(default=10.0, gt=0)
    max_requests: int = Field(default=256, ge=1)
    max_requests_per_token: int = Field(default=128, ge=1)
    rate_per_s: float = Field(default=2000.0, gt=0)
    rate_burst: int = Field(default=4000, ge=1)
    denials_per_s: float = Field(default=5.0, gt=0)
    denials_burst: int = Field(default=100, ge=1)
    max_connections: int = Field(default=2048, ge=1)
    max_connections_per_address: int = Field(default=1024, ge=1)
    max_streams: int = Field(default=256, ge=1)
    max_streams_per_user: int = Field(default=32, ge=1)
    token_cache_s: float = Field(default=5.0, ge=0)
    event_buffer: int = Field(default=1000, ge=1)


class AlarmSettings(Model):
    """`sinks`: the drivers, by name, that alarms are told to (`webhook`, `syslog`, `smtp`);
    each is configured under `[plugins.<name>]`."""

    sinks: tuple[str, ...] = ()


class TelemetrySettings(Model):
    """Traces go to `otlp_endpoint`, a share of `sample` of them; None: telemetry is off."""

    otlp_endpoint: str | None = None
    sample: float = Field(default=0.01, ge=0, le=1)


class Settings(Model):
    """All settings of a node's services. `address`: where other nodes reach this one. `witness`:
    the bus alone runs here, for its vote."""

    node: Name = Field(default_factory=lambda: socket.gethostname().split(".")[0].lower())
    address: str = "127.0.0.1"
    witness: bool = False
    state_dir: Path = Path("/var/lib/trivet")
    run_dir: Path = Path("/run/trivet")
    prefix: str = Field(default="tv", pattern="^[a-z]{1,3}$")
    log_level: str = "INFO"
    bus: BusSettings = BusSettings()
    compute: ComputeSettings = ComputeSettings()
    storage: StorageSettings = StorageSettings()
    network: NetworkSettings = NetworkSettings()
    security: SecuritySettings = SecuritySettings()
    gateway: GatewaySettings = GatewaySettings()
    alarms: AlarmSettings = AlarmSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    plugins: dict[str, dict[str, Any]] = {}


def load_settings(env: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process: `TRIVET_SETTINGS` or /etc/trivet/trivet.toml, then the
    environment (`TRIVET_COMPUTE__HYPERVISOR`). Raises `Fatal(BAD_SETTINGS)`."""
    path = Path(env.get("TRIVET_SETTINGS", DEFAULT_FILE))
    try:
        values = tomllib.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise Fatal(BAD_SETTINGS, f"{path} can't be read: {error}") from error
    for name, text in env.items():
        if name.startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            _put(values, name.removeprefix(ENV_PREFIX).lower().split("__"), text)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explained(path, error) from error


def _put(values: dict[str, Any], path: list[str], text: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    try:
        values[path[-1]] = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        values[path[-1]] = text


def _explained(path: Path, error: ValidationError) -> Fatal:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    hint = first["msg"]
    if first["type"] == "extra_forbidden":
        model: Any = Settings
        for part in first["loc"][:-1]:
            model = model.model_fields[part].annotation
        near = difflib.get_close_matches(str(first["loc"][-1]), model.model_fields, n=1)
        hint = f"no such setting; did you mean {near[0]}?" if near else "no such setting"
    return Fatal(BAD_SETTINGS, f"{where} in {path} or TRIVET_*", hint=hint)
