"""What an idle process does not use is not in its memory: large modules are imported by who needs
them, when it does. Each case is a process of its own, for imports can't be taken back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SUPERVISOR = "import trivet.host.supervise"
SERVICE = """
import importlib
from trivet.runtime.plugins import Plugins
importlib.import_module("trivet.{service}.__main__")
Plugins.discover("{service}")
"""


def loaded_by(code: str) -> set[str]:
    """The top-level modules of a process that ran `code`."""
    tell = "import json, sys; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    argv = (sys.executable, "-W", "error", "-c", f"{code}\n{tell}")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_supervisor_has_nothing_of_the_bus() -> None:
    loaded = loaded_by(SUPERVISOR)
    assert "trivet" in loaded
    assert not loaded & {"asyncio", "nats", "nacl", "prometheus_client", "opentelemetry", "httpx"}


@pytest.mark.parametrize("service", ["storage", "network", "security"])
def test_a_service_has_nothing_of_what_others_use(service: str) -> None:
    loaded = loaded_by(SERVICE.format(service=service))
    assert {"nats", "pluggy"} <= loaded
    assert not loaded & {"cryptography", "jwt", "httpx", "fastapi", "numpy"}
