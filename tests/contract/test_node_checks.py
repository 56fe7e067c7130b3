"""What a node says of its own health: each check on something well, and on something broken."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import GIB
from trivet.host.certificates import ensure_certificates
from trivet.plugins.node import space
from trivet.plugins.node.health import (
    Certificate,
    CertificateConfig,
    Clock,
    Processes,
    ProcessesConfig,
    certificate_result,
)
from trivet.plugins.node.space import (
    BusStore,
    BusStoreConfig,
    DiskSpace,
    SpaceConfig,
    wanted_bytes,
)
from trivet.runtime.node_checks import look

HERE = DriverContext("n1", Path("/nonexistent"), Path("/nonexistent"))


@pytest.mark.parametrize(
    ("size_gib", "wanted_gib"),
    [(1, 0.5), (10, 1), (100, 5), (200, 10), (100_000, 10)],
)
def test_how_much_is_wanted_depends_on_the_size(size_gib, wanted_gib):
    assert wanted_bytes(size_gib * GIB, SpaceConfig()) == wanted_gib * GIB


async def test_room_on_a_file_system(tmp_path):
    config = SpaceConfig(folders=(tmp_path, tmp_path / "not/there"), least_bytes=1, share=0)
    (answer,) = await DiskSpace(HERE, config).look()
    assert (answer.ok, answer.message) == (True, "")
    assert "GiB free" in answer.detail


async def test_too_little_room(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "wanted_bytes", lambda size, config: size)
    (answer,) = await DiskSpace(HERE, SpaceConfig(folders=(tmp_path,))).look()
    assert (answer.ok, answer.reason) == (False, "TooLittle")
    assert str(tmp_path) in answer.message


async def test_what_is_told_of_space_is_told_in_steps(tmp_path, monkeypatch):
    """It is kept in the store: a byte more or less is no news."""
    told = {space._step(free) for free in range(GIB, 2 * GIB, GIB // 64)}
    assert told == {"2 GiB"}
    assert space._step(5 << 20) == "64 MiB"


async def test_the_bus_store(tmp_path, monkeypatch):
    missing = BusStore(HERE, BusStoreConfig(folders=(tmp_path / "nats",)))
    assert await missing.look() == (), "the bus is on other nodes"
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats/block").write_bytes(b"x" * 3 * 2**20)
    monkeypatch.setattr(space, "wanted_bytes", lambda size, config: 1)
    (answer,) = await missing.look()
    assert answer.ok
    assert "takes 3 MiB" in answer.detail
    monkeypatch.setattr(space, "wanted_bytes", lambda size, config: size)
    (answer,) = await missing.look()
    assert (answer.ok, answer.reason) == (False, "NearlyFull")


def processes(folder, stage="running", **more):
    plain = {"pid": 7, "ready": True, "failures": 0, "last_exit": None}
    told = {"nats": plain, "compute": {**plain, **more}}
    status = folder / "status.json"
    status.write_text(json.dumps({"stage": stage, "processes": told}))
    return Processes(HERE, ProcessesConfig(status_file=status, logs=folder))


@pytest.mark.parametrize(
    ("state", "ok"),
    [
        ({}, True),
        ({"failures": 9}, True),
        ({"ready": False}, True),
        ({"ready": False, "pid": None}, False),
        ({"ready": False, "failures": 2}, True),
        ({"ready": False, "failures": 3}, False),
    ],
    ids=["well", "failed once and runs", "starts", "is not there", "starts again", "ends always"],
)
async def test_processes(tmp_path, state, ok):
    (answer,) = await processes(tmp_path, **state).look()
    assert answer.ok is ok
    assert ok or answer.message.startswith("compute ends again and again")
    assert ok or str(tmp_path / "compute.log") in answer.message


async def test_processes_that_nobody_supervises(tmp_path):
    assert await processes(tmp_path, stage="stopping guests", ready=False).look() == ()
    missing = Processes(HERE, ProcessesConfig(status_file=tmp_path / "no"))
    assert await missing.look() == ()
    (tmp_path / "status.json").write_text("{")
    broken = Processes(HERE, ProcessesConfig(status_file=tmp_path / "status.json"))
    (answer,) = await broken.look()
    assert answer.ok is None


@pytest.mark.parametrize(
    ("days", "ok", "reason"),
    [(0, True, "Good"), (10_000, False, "Expired")],
)
def test_a_certificate(tmp_path, days, ok, reason):
    now = datetime.now(UTC)
    ensure_certificates(tmp_path, ["localhost"], ["127.0.0.1"], 0, now)
    at = now + timedelta(days=days)
    answer = certificate_result(tmp_path / "server.pem", at, timedelta(days=21))
    assert (answer.ok, answer.reason) == (ok, reason)
    assert ok or "server.pem" in answer.message


def test_a_certificate_that_expires_soon(tmp_path):
    now = datetime.now(UTC)
    ensure_certificates(tmp_path, ["localhost"], ["127.0.0.1"], 0, now)
    answer = certificate_result(tmp_path / "server.pem", now, timedelta(days=10_000))
    assert (answer.ok, answer.reason) == (False, "Expiring")


async def test_no_certificate(tmp_path):
    assert await Certificate(HERE, CertificateConfig()).look() == ()
    broken = tmp_path / "server.pem"
    for content in (None, "nonsense"):
        if content:
            broken.write_text(content)
        (answer,) = await Certificate(HERE, CertificateConfig(file=broken)).look()
        assert answer.ok is False
        assert "can't be read" in answer.message


async def test_the_clock():
    (answer,) = await Clock(HERE, NoConfig()).look()
    assert answer.ok in (True, None), "that nobody keeps it is no fault"
    assert answer.detail


async def test_a_check_that_fails_silences_no_other(tmp_path):
    class Broken:
        name = "some-thing"

        async def look(self):
            raise Fatal(DRIVER_FAILED, "it broke")

    broken, clock = await look((Broken(), Clock(HERE, NoConfig())))
    assert (broken.type, broken.ok, broken.reason) == ("SomeThing", None, "CheckFailed")
    assert clock.type == "Clock"
