"""`trivet doctor`: what works on this machine, and why what doesn't.

It asks in order: the machine (engines, kernel, memory), the drivers' probes, the node's own
health (space, certificate, clock, processes), the instance (ports, the gateway's health), the
bus (streams), and the cluster (alarms, what is not as asked). It changes nothing, needs no
running instance, and every part that can't be asked is a finding, never an end: what is broken
is just when it is wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from trivet.contracts.errors import TrivetError
from trivet.host.layout import Layout
from trivet.runtime.settings import Settings, load_settings

PART_TIMEOUT_S = 40.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `ok` None: worth knowing, neither good nor bad. `hint`: what to do."""

    part: str
    about: str
    ok: bool | None
    says: str
    hint: str = ""


Examine = Callable[[Layout, Settings], Awaitable[Sequence[Finding]]]


async def examine(layout: Layout) -> list[Finding]:
    """Everything that can be told, part after part."""
    from trivet.host import doctor_cluster, doctor_instance, doctor_machine

    findings: list[Finding] = []
    settings = _settings(layout, findings)
    parts: tuple[tuple[str, Examine], ...] = (
        ("machine", doctor_machine.engines),
        ("drivers", doctor_machine.drivers),
        ("node", doctor_instance.checks),
        ("instance", doctor_instance.processes),
        ("instance", doctor_instance.ports),
        ("bus", doctor_cluster.streams),
        ("cluster", doctor_cluster.cluster),
    )
    for part, ask in parts:
        findings += await _asked(part, ask, layout, settings)
    return findings


def _settings(layout: Layout, findings: list[Finding]) -> Settings:
    """The instance's settings; where they can't be used, that is told, and the defaults serve."""
    try:
        return load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})
    except TrivetError as error:
        findings.append(Finding("instance", "settings", False, error.detail, error.hint or ""))
        return Settings(state_dir=layout.state, run_dir=layout.run, prefix=layout.prefix)


async def _asked(part: str, ask: Examine, layout: Layout, settings: Settings) -> Iterable[Finding]:
    try:
        async with asyncio.timeout(PART_TIMEOUT_S):
            return await ask(layout, settings)
    except TimeoutError:
        return [Finding(part, part, False, f"no answer within {PART_TIMEOUT_S:.0f} s")]
    except TrivetError as error:
        return [Finding(part, part, False, error.detail, error.hint or "")]
    except (OSError, ValueError) as error:
        return [Finding(part, part, False, f"{type(error).__name__}: {error}")]


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are wrong."""
    return [finding for finding in findings if finding.ok is False]
