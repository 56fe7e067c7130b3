"""List, show and acknowledge this service's alarms."""

from typing import Any

from trivet.contracts.network.alarms import ALARM
from trivet.contracts.network.endpoints.alarms import CRUD
from trivet.runtime.alarms import serve_alarms
from trivet.runtime.service import Service


def wire(service: Service, parts: Any) -> None:
    """Answer `alarm.list`, `alarm.get` and `alarm.ack`."""
    serve_alarms(service, ALARM, CRUD)
