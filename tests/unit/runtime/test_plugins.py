"""Plugins: chosen by name or by probe, left out with a reason, never in the way."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from trivet.contracts.driver import DriverContext, NoConfig, Probe
from trivet.contracts.errors import Fatal
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model
from trivet.runtime.plugins import Plugins

HOOK = "trivet_firewall_backends"


class Size(Model):
    size: int = 1


def driver(name_: str, probe_: Probe | Exception, config: type[Model] = NoConfig) -> type[Any]:
    class Made:
        name: ClassVar[str] = name_
        Config: ClassVar[type[Model]] = config

        def __init__(self, context: DriverContext, config: Any) -> None:
            self.config = config
            self.opened = False

        @classmethod
        async def probe(cls) -> Probe:
            if isinstance(probe_, Exception):
                raise probe_
            return probe_

        async def open(self) -> None:
            self.opened = True

    return Made


def plugin(*classes: type[Any]) -> Any:
    def trivet_firewall_backends() -> list[type[Any]]:
        return list(classes)

    return SimpleNamespace(trivet_firewall_backends=hookimpl(trivet_firewall_backends))


def usable(score: int) -> Probe:
    return Probe(usable=True, reason="works", score=score)


def context(name: str) -> DriverContext:
    return DriverContext("n1", Path("/nonexistent"), Path("/nonexistent"))


def plugins(*classes: type[Any]) -> Plugins:
    made = Plugins()
    made.register(plugin(*classes), "p")
    return made


async def test_auto_takes_the_best_that_works() -> None:
    found = plugins(
        driver("slow", usable(1)),
        driver("best", usable(10)),
        driver("absent", Probe(usable=False, reason="no such kernel module", score=99)),
        driver("fake", usable(-1)),
    )
    chosen = await found.choose(HOOK, "auto", context, {})
    assert (chosen.name, chosen.opened) == ("best", True)


async def test_a_fake_is_never_chosen_by_auto_but_by_name() -> None:
    found = plugins(driver("fake", usable(-1)))
    assert (await found.choose(HOOK, "fake", context, {})).name == "fake"
    with pytest.raises(Fatal, match="no driver can work here"):
        await found.choose(HOOK, "auto", context, {})


async def test_why_none_works_is_told_for_each() -> None:
    found = plugins(
        driver("a", Probe(usable=False, reason="no /dev/a")), driver("b", RuntimeError("broken"))
    )
    with pytest.raises(Fatal) as fatal:
        await found.choose(HOOK, "auto", context, {})
    assert "a: no /dev/a" in (fatal.value.hint or "")
    assert "b: its probe failed: RuntimeError: broken" in (fatal.value.hint or "")


async def test_an_unknown_name_is_told_with_what_there_is() -> None:
    with pytest.raises(Fatal, match="found: a"):
        await plugins(driver("a", usable(1))).choose(HOOK, "b", context, {})


async def test_a_configuration_is_checked() -> None:
    found = plugins(driver("a", usable(1), Size))
    assert (await found.choose(HOOK, "a", context, {"a": {"size": 3}})).config.size == 3
    with pytest.raises(Fatal, match=r"plugins\.a"):
        await found.choose(HOOK, "a", context, {"a": {"sise": 3}})


def test_a_plugin_with_an_unknown_hook_is_left_out() -> None:
    def trivet_firewal_backends() -> list[Any]:
        return []

    found = Plugins()
    found.register(SimpleNamespace(trivet_firewal_backends=hookimpl(trivet_firewal_backends)), "p")
    assert "trivet_firewal_backends" in found.rejected["p"]
    assert found.values(HOOK) == []


def test_what_is_installed_here_is_found() -> None:
    assert Plugins.discover().rejected == {}


async def test_a_service_loads_its_own_plugins_and_those_for_all() -> None:
    hooks = ("trivet_volume_engines", "trivet_switch_drivers", "trivet_alarm_sinks")

    async def found(service: str | None) -> list[bool]:
        plugins = Plugins.discover(service)
        return [bool(await plugins.report(hook)) for hook in hooks]

    assert await found("storage") == [True, False, True]
    assert await found("network") == [False, True, True]
    assert await found(None) == [True, True, True]
