"""The settings file and the bus server's configuration, made once for a new instance.

The settings are the operator's from then on: `up` writes them only where there are none. The bus
configuration follows from the keys and the code, and is written whenever it differs.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

from trivet.host.cluster import BUS_PORT, Membership, bus_listen, route_listen
from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import Layout
from trivet.host.whole_files import write_whole
from trivet.runtime.nats_config import Cluster as BusCluster
from trivet.runtime.nats_config import ServerPlan, Tls, server_config
from trivet.runtime.settings import Settings, load_settings

API_PORT = 8443

HEAD = """\
# Settings of this Trivet node; each can be overridden by TRIVET_* in the services' environment.
# Unknown keys refuse to start. Secrets are never here, only paths of files.
"""

Values = dict[str, str | int | Path | tuple[str, ...]]


def ensure_settings(layout: Layout, known: Membership | None = None) -> Settings:
    """The instance's settings, after writing the file where there is none."""
    if not layout.settings_file.exists():
        write_whole(layout.settings_file, new_settings(layout, known).encode(), 0o644)
    return load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})


def new_settings(layout: Layout, known: Membership | None = None) -> str:
    """The text of a new instance's settings: of a cluster's member, or of one that is alone,
    which with a root folder of its own gets ports that are free."""
    sections: dict[str, Values] = {
        "": {"state_dir": layout.state, "run_dir": layout.run, "prefix": layout.prefix},
        "bus": {"keys_dir": layout.keys},
        "compute": {"import_dir": layout.state / "import"},
        "storage": {},
        "network": {},
        "security": {"bootstrap_token_file": layout.token_file},
        "gateway": {
            "certificate": layout.tls / "server.pem",
            "private_key": layout.tls / "server.key",
            "ca_file": layout.ca_file,
        },
        "plugins.libvirt": {
            "uri": libvirtd_of(layout).uri,
            "guest_logs": layout.state / "libvirt/log/qemu",
            "cgroups": True,
        },
    }
    where = _alone(layout) if known is None else _in_cluster(layout, known)
    for name, values in where.items():
        sections[name].update(values)
    return HEAD + "\n".join(_section(name, values) for name, values in sections.items() if values)


def _alone(layout: Layout) -> dict[str, Values]:
    bus_port, api_port = (BUS_PORT, API_PORT) if layout.ordinary else _free_ports()
    return {
        "bus": {"urls": (f"nats://127.0.0.1:{bus_port}",)},
        "gateway": {"host": "127.0.0.1", "port": api_port},
    }


def _in_cluster(layout: Layout, known: Membership) -> dict[str, Values]:
    me, cluster = known.me, known.cluster
    storage_address = me.storage_address or me.address
    return {
        "": {"node": me.name, "address": me.address, "witness": me.witness},
        "bus": {
            "urls": cluster.bus_urls(me.name),
            "replicas": cluster.copies,
            "ca_file": layout.ca_file,
        },
        "storage": {"address": storage_address},
        "network": {"vtep": storage_address},
        "gateway": {"host": me.address, "port": API_PORT},
    }


def _section(name: str, values: Values) -> str:
    head = f"[{name}]\n" if name else ""
    return head + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: str | int | Path | tuple[str, ...]) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)


def write_bus_config(
    layout: Layout,
    settings: Settings,
    public_keys: dict[str, str],
    known: Membership | None = None,
) -> bool:
    """Write the bus server's configuration; whether it differed."""
    text = server_config(_plan(layout, settings, public_keys, known))
    if _text(layout.bus_config) == text:
        return False
    # An empty one would let anybody in.
    write_whole(layout.bus_config, text.encode(), 0o644)
    return True


def _plan(
    layout: Layout, settings: Settings, public_keys: dict[str, str], known: Membership | None
) -> ServerPlan:
    if known is None:
        parts = urlsplit(settings.bus.urls[0])
        listen = f"{parts.hostname}:{parts.port or BUS_PORT}"
        return ServerPlan(settings.node, listen, layout.bus_data, public_keys)
    files = (layout.tls / "server.pem", layout.tls / "server.key")
    among = BusCluster(
        known.cluster.name,
        route_listen(known.me),
        known.cluster.routes(),
        Tls(*files, authority=layout.ca_file, verify=True),
    )
    return ServerPlan(
        known.node,
        bus_listen(known.me),
        layout.bus_data,
        public_keys,
        other_keys=tuple(member.public_keys for member in known.others),
        tls=Tls(*files),
        cluster=among,
    )


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])
