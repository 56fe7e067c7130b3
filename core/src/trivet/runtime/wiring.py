"""Putting an endpoint's handler where it belongs: by walking, so that a new one is one file.

Each module in a service's `endpoints` package has `wire(service, parts)`, which calls
`service.handle` or `serve_crud`. After the walk every declared operation must have a handler.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from trivet.contracts.endpoint import declared
from trivet.runtime.service import Service


def wire_endpoints(service: Service, parts: Any) -> None:
    """Wire all modules of `trivet.<service>.endpoints`; `parts` is what the service's
    bootstrap made for its handlers. Raises where a declared operation has none."""
    name = service.runtime.service
    package = importlib.import_module(f"trivet.{name}.endpoints")
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{info.name}").wire(service, parts)
    missing = {e.op for e in declared(name)} - service.handled
    if missing:
        raise RuntimeError(f"{name}: declared, but without a handler: {sorted(missing)}")
