"""`trivet doctor` on machines where things are missing, broken, or not there yet."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from trivet.cli.__main__ import run
from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.host import doctor, doctor_cluster, doctor_instance, doctor_machine
from trivet.host.config_files import ensure_settings
from trivet.host.layout import Layout
from trivet.runtime.settings import Settings


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def instance(layout: Layout) -> Layout:
    """One that was set up and does not run."""
    for folder in layout.folders:
        folder.mkdir(parents=True)
    ensure_settings(layout)
    return layout


def settings_of(layout: Layout) -> Settings:
    return ensure_settings(layout)


def about(findings: Any, name: str) -> Any:
    (found,) = [f for f in findings if f.about == name]
    return found


async def test_before_the_first_up_nothing_is_wrong_with_the_instance(layout: Layout) -> None:
    settings = Settings(state_dir=layout.state, run_dir=layout.run)
    found = await doctor_instance.processes(layout, settings)
    assert [(f.about, f.ok) for f in found] == [("supervisor", None)]
    assert "up" in found[0].hint
    assert await doctor_cluster.streams(layout, settings) == []
    assert await doctor_cluster.cluster(layout, settings) == []
    checks = await doctor_instance.checks(layout, settings)
    assert doctor.wrong(checks) == []


async def test_settings_that_can_t_be_used_are_told_and_the_rest_goes_on(
    instance: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(layout: Layout, settings: Settings) -> list[doctor.Finding]:
        return []

    monkeypatch.setattr(doctor_machine, "engines", nothing)
    monkeypatch.setattr(doctor_machine, "drivers", nothing)
    instance.settings_file.write_text("[gatway]\nport = 1\n")
    found = await doctor.examine(instance)
    told = about(found, "settings")
    assert told.ok is False
    assert "gateway" in told.hint, "the nearest name that there is"
    assert about(found, "supervisor").ok is None


async def test_a_part_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(layout: Layout, settings: Settings) -> list[doctor.Finding]:
        raise Retry(UNAVAILABLE, "nobody is there", hint="start it")

    async def broken(layout: Layout, settings: Settings) -> list[doctor.Finding]:
        raise PermissionError("not yours")

    for ask, says in ((away, "nobody is there"), (broken, "PermissionError: not yours")):
        (found,) = await doctor._asked("bus", ask, Layout(), Settings())
        assert (found.ok, found.says) == (False, says)


async def test_a_program_that_is_missing(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"nft": ("no-such-program", "--version")}
    broken = {"qemu": (str(tmp_path / "broken"), "--version")}
    (tmp_path / "broken").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "broken").chmod(0o755)
    monkeypatch.setattr(doctor_machine, "ENGINES", {**missing, **broken})
    found = await doctor_machine.engines(layout, Settings())
    assert about(found, "nft").ok is False
    assert "not installed" in about(found, "nft").says
    assert about(found, "qemu").ok is False
    assert about(found, "memory").ok


async def test_a_kind_of_driver_of_which_none_can_work_is_wrong(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(layout.root))
    found = await doctor_machine.drivers(layout, Settings())
    bad = {f.about.split(":")[0] for f in doctor.wrong(found)}
    assert {"firewall backends", "volume engines"} <= bad
    assert "alarm sinks" not in bad, "those are only used where settings name them"


async def test_a_port_that_somebody_else_has(instance: Layout) -> None:
    settings = settings_of(instance)
    assert doctor.wrong(await doctor_instance.ports(instance, settings)) == []
    with socket.create_server(("127.0.0.1", settings.gateway.port)):
        (bad,) = doctor.wrong(await doctor_instance.ports(instance, settings))
    assert str(settings.gateway.port) in bad.about
    assert str(instance.settings_file) in bad.hint


async def test_a_certificate_that_is_gone_is_wrong_once_there_is_an_instance(
    instance: Layout,
) -> None:
    found = await doctor_instance.checks(instance, settings_of(instance))
    told = about(found, "certificate")
    assert told.ok is False
    assert "trivet up" in told.hint


def test_a_stream_is_judged_by_its_copies() -> None:
    state = {"messages": 3, "bytes": 2**20}
    well = {"state": state, "cluster": {"leader": "n1", "replicas": [{"name": "n2"}]}}
    late = {
        "state": state,
        "cluster": {"leader": "n1", "replicas": [{"name": "n2", "offline": True}]},
    }
    leaderless = {"state": state, "cluster": {"replicas": [{"name": "n2", "current": True}]}}
    assert doctor_cluster._stream("EVENTS", {"state": state}).ok
    assert doctor_cluster._stream("EVENTS", well).ok
    assert doctor_cluster._stream("EVENTS", late).ok is False
    assert "n2" in doctor_cluster._stream("EVENTS", late).says
    assert doctor_cluster._stream("EVENTS", leaderless).ok is False
    assert doctor_cluster._stream("EVENTS", None).ok is False


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (None, 0), (False, 1)])
def test_programs_get_json_and_an_exit_code(
    ok: bool | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    async def found(layout: Layout) -> list[doctor.Finding]:
        return [doctor.Finding("machine", "nft", ok, "v1", "hint")]

    monkeypatch.setattr(doctor, "examine", found)
    assert run(["doctor", "--root", str(tmp_path), "-o", "json"]) == code
    (told,) = json.loads(capsys.readouterr().out)
    assert told == {"part": "machine", "about": "nft", "ok": ok, "says": "v1", "hint": "hint"}
    assert run(["doctor", "--root", str(tmp_path)]) == code
    table = capsys.readouterr().out
    assert "nft" in table
    assert ("-> hint" in table) == (ok is not True)
