"""The node checks of this machine, configured from the settings: for the agent, and for doctor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivet.contracts.compute.node_check import CheckResult, NodeCheck
from trivet.contracts.errors import TrivetError
from trivet.runtime.plugins import MakeContext, Plugins
from trivet.runtime.settings import Settings

HOOK = "trivet_node_checks"
LOGS = Path("log/trivet")


def check_configs(settings: Settings) -> dict[str, dict[str, Any]]:
    """What the built-in checks look at on this node; `[plugins.<name>]` counts over it."""
    state, run = settings.state_dir, settings.run_dir
    logs = state.parent.parent / LOGS
    told: dict[str, dict[str, Any]] = {
        "disk-space": {"folders": [state, logs]},
        "bus-store": {"folders": [state / "nats"]},
        "processes": {"status_file": run / "status.json", "logs": logs},
        "certificate": {"file": settings.gateway.certificate},
    }
    configs = dict(settings.plugins)
    for name, values in told.items():
        configs[name] = {**values, **configs.get(name, {})}
    return configs


async def open_checks(
    plugins: Plugins, settings: Settings, make_context: MakeContext
) -> list[NodeCheck]:
    """All checks that can work here, opened."""
    return await plugins.usable(HOOK, make_context, check_configs(settings))


async def look(checks: Sequence[NodeCheck]) -> tuple[CheckResult, ...]:
    """What all checks say; one that fails says just that."""
    results: list[CheckResult] = []
    for check in checks:
        try:
            results += await check.look()
        except (TrivetError, OSError) as error:
            type_ = "".join(part.capitalize() for part in check.name.split("-"))
            detail = f"{check.name}: {error}"
            results.append(CheckResult(type=type_, ok=None, reason="CheckFailed", detail=detail))
    return tuple(results)
