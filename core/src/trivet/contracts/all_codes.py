"""Every service's error codes, declared in one go.

An error that crosses the bus or HTTP is raised again under its own code, which the process that
reads it has to know, whichever service it came from. So whoever reads errors calls `declare`.
"""

from __future__ import annotations

import importlib
import importlib.util

from trivet.contracts.endpoint import SERVICES


def declare() -> None:
    """Import `trivet.contracts.<service>.codes` of every service that has codes of its own."""
    for service in SERVICES:
        name = f"trivet.contracts.{service}.codes"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
