"""The settings file and the bus server's configuration, made once for a new instance.

The settings are the operator's from then on: `up` writes them only where there are none. The bus
configuration follows from the keys and the code, and is written whenever it differs.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

from trivet.host.hypervisor import libvirtd_of
from trivet.host.keys import write_whole
from trivet.host.layout import Layout
from trivet.runtime.nats_config import ServerPlan, server_config
from trivet.runtime.settings import Settings, load_settings

BUS_PORT = 4222
API_PORT = 8443

SETTINGS = """\
# Settings of this Trivet node; each can be overridden by TRIVET_* in the services' environment.
# Unknown keys refuse to start. Secrets are never here, only paths of files.
state_dir = {state}
run_dir = {run}
prefix = {prefix}

[bus]
urls = [{bus_url}]
keys_dir = {keys}

[compute]
import_dir = {import_dir}

[security]
bootstrap_token_file = {token_file}

[gateway]
host = {api_host}
port = {api_port}
certificate = {certificate}
private_key = {private_key}
ca_file = {ca_file}

[plugins.libvirt]
uri = {libvirt_uri}
guest_logs = {guest_logs}
"""


def ensure_settings(layout: Layout) -> Settings:
    """The instance's settings, after writing the file where there is none."""
    if not layout.settings_file.exists():
        write_whole(layout.settings_file, new_settings(layout).encode(), 0o644)
    return load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})


def new_settings(layout: Layout) -> str:
    """The text of a new instance's settings; one with its own root gets ports that are free."""
    bus_port, api_port = (BUS_PORT, API_PORT) if layout.ordinary else _free_ports()
    values = {
        "state": layout.state,
        "run": layout.run,
        "prefix": layout.prefix,
        "bus_url": f"nats://127.0.0.1:{bus_port}",
        "keys": layout.keys,
        "import_dir": layout.state / "import",
        "token_file": layout.token_file,
        "api_host": "127.0.0.1",
        "api_port": api_port,
        "certificate": layout.tls / "server.pem",
        "private_key": layout.tls / "server.key",
        "ca_file": layout.ca_file,
        "libvirt_uri": libvirtd_of(layout).uri,
        "guest_logs": layout.state / "libvirt/log/qemu",
    }
    written = {k: v if isinstance(v, int) else json.dumps(str(v)) for k, v in values.items()}
    return SETTINGS.format(**written)


def write_bus_config(layout: Layout, settings: Settings, public_keys: dict[str, str]) -> bool:
    """Write the bus server's configuration; whether it differed."""
    parts = urlsplit(settings.bus.urls[0])
    plan = ServerPlan(
        name=settings.node,
        listen=f"{parts.hostname}:{parts.port or BUS_PORT}",
        store_dir=layout.bus_data,
        public_keys=public_keys,
    )
    text = server_config(plan)
    if _text(layout.bus_config) == text:
        return False
    # An empty one would let anybody in.
    write_whole(layout.bus_config, text.encode(), 0o644)
    return True


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
