"""Finding plugins, and choosing drivers among them.

A plugin is found by an entry point of the group `trivet`, or, where it serves one service only,
`trivet.<service>`: the others then don't load what it imports. Found is not enabled: settings name
a driver, or `auto` takes the usable one of the highest score; why the others can't work here is
kept and told. A plugin that can't be imported, or that has a hook nobody knows, is left out
with its reason, so that a third party's mistake never keeps Trivet from starting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import pluggy
from pydantic import ValidationError

from trivet.contracts import hookspecs
from trivet.contracts.driver import Driver, DriverContext, Probe
from trivet.contracts.errors import Fatal, Refused, code
from trivet.runtime.telemetry import trace_calls

log = logging.getLogger(__name__)

GROUP = "trivet"
NO_DRIVER = code("plugin.no_driver", 500, "No driver can do this on this machine")
BAD_CONFIG = code("plugin.bad_config", 500, "The configuration of a plugin can't be used")

MakeContext = Callable[[str], DriverContext]


@dataclass(frozen=True)
class Finding:
    """A driver that was found, and whether it can work here."""

    hook: str
    name: str
    plugin: str
    probe: Probe


class Plugins:
    """The plugins of this process."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self.rejected: dict[str, str] = {}

    @classmethod
    def discover(cls, service: str | None = None) -> Plugins:
        """The plugins of a service (None: of all) that are installed beside this process."""
        plugins = cls()
        installed = entry_points()
        wanted = {GROUP, f"{GROUP}.{service}"}
        groups = [g for g in installed.groups if g in wanted or (not service and _is_ours(g))]
        points = [point for group in groups for point in installed.select(group=group)]
        for point in sorted(points, key=lambda p: p.name):
            try:
                plugins.register(point.load(), point.name)
            except Exception as error:  # noqa: BLE001 - a third party's import may raise anything
                plugins._reject(point.name, f"{type(error).__name__}: {error}")
        return plugins

    def register(self, module: Any, name: str) -> None:
        """Add a plugin; one with an unknown hook is left out, with the reason."""
        self._manager.register(module, name)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(name=name)
            self._reject(name, str(error))

    def _reject(self, name: str, reason: str) -> None:
        log.warning("plugin %s is left out: %s", name, reason)
        self.rejected[name] = reason

    def values(self, hook: str) -> list[Any]:
        """Everything that all plugins registered at `hook`."""
        return [value for values in getattr(self._manager.hook, hook)() for value in values]

    def _classes(self, hook: str) -> list[tuple[str, type[Driver]]]:
        found: list[tuple[str, type[Driver]]] = []
        for caller in getattr(self._manager.hook, hook).get_hookimpls():
            found.extend((caller.plugin_name, cls) for cls in caller.function())
        return found

    async def report(self, hook: str) -> list[Finding]:
        """Every driver at `hook` with what its probe says, best first."""
        findings = [
            Finding(hook, cls.name, plugin, await _probe(cls))
            for plugin, cls in self._classes(hook)
        ]
        return sorted(findings, key=lambda f: (not f.probe.usable, -f.probe.score, f.name))

    async def choose(
        self, hook: str, wanted: str, make_context: MakeContext, configs: Mapping[str, Any]
    ) -> Any:
        """The opened driver that `wanted` names, or for `auto` the best that can work here.

        Raises `Fatal(NO_DRIVER)` with every candidate's reason.
        """
        classes = {cls.name: cls for _, cls in self._classes(hook)}
        if wanted != "auto":
            if wanted not in classes:
                known = ", ".join(sorted(classes)) or "none"
                raise Fatal(
                    NO_DRIVER, f"{hook}: there is no driver {wanted}", hint=f"found: {known}"
                )
            probe = await _probe(classes[wanted])
            if not probe.usable:
                raise Fatal(NO_DRIVER, f"{hook}: {wanted} can't work here", hint=probe.reason)
            return await _open(classes[wanted], make_context, configs)
        findings = await self.report(hook)
        best = next((f for f in findings if f.probe.usable and f.probe.score >= 0), None)
        if best is None:
            why = "; ".join(f"{f.name}: {f.probe.reason}" for f in findings) or "none installed"
            raise Fatal(NO_DRIVER, f"{hook}: no driver can work here", hint=why)
        log.info("%s: %s (%s)", hook, best.name, best.probe.reason)
        return await _open(classes[best.name], make_context, configs)

    async def usable(
        self, hook: str, make_context: MakeContext, configs: Mapping[str, Any]
    ) -> list[Any]:
        """All drivers at `hook` that can work here and are not fakes, opened, best first."""
        classes = {cls.name: cls for _, cls in self._classes(hook)}
        return [
            await _open(classes[f.name], make_context, configs)
            for f in await self.report(hook)
            if f.probe.usable and f.probe.score >= 0
        ]


def _is_ours(group: str) -> bool:
    return group == GROUP or group.startswith(f"{GROUP}.")


async def _probe(cls: type[Driver]) -> Probe:
    try:
        return await cls.probe()
    except Exception as error:  # noqa: BLE001 - a probe that raises is an answer: not usable
        return Probe(usable=False, reason=f"its probe failed: {type(error).__name__}: {error}")


async def _open(cls: type[Driver], make_context: MakeContext, configs: Mapping[str, Any]) -> Driver:
    try:
        config = cls.Config.model_validate(dict(configs.get(cls.name, {})))
    except ValidationError as error:
        where = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise Fatal(BAD_CONFIG, f"[plugins.{cls.name}]: {where}", hint=str(error)) from error
    driver = cls(make_context(cls.name), config)
    trace_calls(driver, cls.name)
    try:
        await driver.open()
    except Refused as error:
        raise Fatal(
            NO_DRIVER, f"{cls.name} did not open: {error.detail}", hint=error.hint
        ) from error
    return driver
