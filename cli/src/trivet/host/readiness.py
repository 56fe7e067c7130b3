"""Whether a process of the node does its work yet, asked from outside.

The bus and libvirt's daemon are ready when their sockets answer, the gateway when it tells its
health. The other services have no socket of their own: running is what can be said of them here,
and the gateway's health says which of them answer.
"""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import Layout
from trivet.runtime.settings import Settings

TIMEOUT_S = 3.0
NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Health:
    """What the gateway says: `ok` or `degraded`, and what is wrong with each service that does
    not do its work."""

    status: str
    silent: dict[str, str]


def ready(unit: str, layout: Layout, settings: Settings) -> bool:
    """Whether the running process of a unit is ready."""
    match unit:
        case "nats":
            return _answers_on_tcp(settings.bus.urls[0])
        case "libvirtd":
            return _answers_on_unix(str(libvirtd_of(layout).socket))
        case "gateway":
            return gateway_health(settings, layout) is not None
        case _:
            return True


def supervised(layout: Layout, unit: str) -> bool:
    """Whether the present supervisor says that it has started a unit, and that it is ready."""
    try:
        told = json.loads(layout.status_file.read_text())
    except OSError:
        return False
    return bool(told["processes"].get(unit, {}).get("ready"))


def gateway_url(settings: Settings) -> str:
    """Where this node's gateway is reached from this node."""
    host = settings.gateway.host
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    return f"https://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}"


def gateway_health(settings: Settings, layout: Layout) -> Health | None:
    """What the gateway says of the services; None where it does not answer."""
    answer = _asked(settings, layout, "/v1/health")
    if answer is None:
        return None
    _, told = answer  # with 503 it is there, and says who is not
    services = told.get("services", {})
    silent = {
        name: told.get("reason", "")
        for name, told in services.items()
        if not told.get("reachable") or told.get("reason")
    }
    return Health(str(told.get("status")), silent)


def proves_something(settings: Settings, layout: Layout, token: str) -> bool:
    """Whether the gateway knows the bearer of a token."""
    answer = _asked(settings, layout, "/v1/whoami", {"Authorization": f"Bearer {token}"})
    return answer is not None and answer[0] == HTTPStatus.OK


def _asked(
    settings: Settings, layout: Layout, path: str, headers: Mapping[str, str] = NO_HEADERS
) -> tuple[int, dict[str, Any]] | None:
    """Status and document of the gateway's answer; None where there is none."""
    try:
        context = ssl.create_default_context(cafile=layout.ca_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        request = urllib.request.Request(gateway_url(settings) + path, headers=dict(headers))
        try:
            answer = opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, json.load(answer)
    except (OSError, ValueError):
        return None


def _answers_on_tcp(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 4222), TIMEOUT_S) as link:
            return link.recv(4) == b"INFO"
    except OSError:
        return False


def _answers_on_unix(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(path)
        except OSError:
            return False
    return True
