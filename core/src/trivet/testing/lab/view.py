"""The lab as one looks at it: each node's machine and settings, and what the cluster says.

It changes nothing; `Lab` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trivet.client import Client
from trivet.client.config import load_config
from trivet.contracts.compute.node import Node
from trivet.contracts.errors import TrivetError
from trivet.contracts.resource import Phase
from trivet.host import caller, readiness
from trivet.host.failure import failed
from trivet.host.units import units_of
from trivet.runtime.settings import Settings, load_settings
from trivet.testing.lab import clocks
from trivet.testing.lab.machine_space import MachineSpace
from trivet.testing.lab.plan import LabPlan

READY_S = 180.0
LOOK_S = 0.1

Say = Callable[[str], None]


class LabView:
    """The lab of a plan."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan

    def machine(self, name: str) -> MachineSpace:
        """The machine of a node."""
        layout = self.plan.layout(name)
        python = str(layout.venv / "bin/python")
        clock = clocks.environment(self.plan.base, layout)
        preset = ("env", *(f"{key}={value}" for key, value in clock.items()))
        supervise = (*preset, python, "-m", "trivet.host.supervise", "--root", str(layout.root))
        log = str(layout.log_file("supervisor"))
        logged = ("/bin/sh", "-c", f'exec "$@" >>{log} 2>&1', "sh", *supervise)
        return MachineSpace(name, layout.root, self.plan.namespace(name), logged)

    def settings(self, name: str) -> Settings:
        """What a node's services are set to."""
        return load_settings({"TRIVET_SETTINGS": str(self.plan.layout(name).settings_file)})

    def client_env(self, name: str | None = None) -> dict[str, str]:
        """The environment in which the command line reaches the cluster; files that it gives to
        a node are given to `name` (None: the first)."""
        base = self.plan.base
        return {
            "TRIVET_CONFIG": str(caller.client_file(base, {}).path),
            "TRIVET_ROOT": str(self.plan.layout(name or self.plan.workers[0]).root),
        }

    def client(self) -> Client:
        """A client of the API: one a thread."""
        return Client.of(load_config(self.client_env()))

    def phases(self) -> dict[str, Phase]:
        """How the cluster sees each node; empty while it can't say."""
        token = self.token()
        if not token:
            return {}
        settings = self.settings(self.alive())
        url, base = readiness.gateway_url(settings), self.plan.base
        try:
            with Client(url, token, base.ca_file, retry_s=0) as client:
                nodes: tuple[Node, ...] = client.nodes.list().items
        except TrivetError:
            return {}
        return {node.meta.name: node.status.phase for node in nodes}

    def alive(self) -> str:
        """A node that is switched on, the first where none is."""
        on = [n for n in self.plan.workers if self.machine(n).pid is not None]
        return (on or self.plan.workers)[0]

    def token(self) -> str:
        """The first administrator's token, from whichever node led at the first start; ''
        while there is none that counts."""
        for name in self.plan.workers:
            layout = self.plan.layout(name)
            if layout.token_file.exists():
                token = layout.token_file.read_text().strip()
                settings = self.settings(self.alive())
                if readiness.proves_something(settings, layout, token):
                    return token
        return ""

    def wait_ready(self, names: Sequence[str], say: Say, seconds: float = READY_S) -> None:
        """Wait until nodes do their work, by what they and the cluster say. Raises `Fatal`."""
        deadline = time.monotonic() + seconds
        told = ""
        while missing := self._missing(names):
            if time.monotonic() > deadline:
                raise failed(f"not ready after {seconds:.0f} s: {missing}")
            if missing != told:
                say(f"waiting for {missing}")
                told = missing
            time.sleep(LOOK_S)

    def _missing(self, names: Sequence[str]) -> str:
        """What the nodes of those names still lack; '' nothing."""
        for name in names:
            layout, settings = self.plan.layout(name), self.settings(name)
            for unit in units_of(layout, witness=settings.witness):
                if not readiness.supervised(layout, unit.name):
                    return f"{unit.name} of {name}"
            if settings.witness:
                continue
            health = readiness.gateway_health(settings, layout)
            if health is None or health.status != "ok":
                silent = ", ".join(health.silent) if health else "the gateway"
                return f"{silent or 'services'} on {name}"
        phases = self.phases()
        for name in names:
            if name in self.plan.workers and phases.get(name) is not Phase.READY:
                return f"the cluster to hear of {name}"
        return ""
