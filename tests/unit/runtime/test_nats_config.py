"""The server's configuration: its text, its permissions, the keys it names."""

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from trivet.contracts.errors import Fatal
from trivet.runtime.nats_config import (
    IDENTITIES,
    Cluster,
    ServerPlan,
    Tls,
    permissions,
    server_config,
)
from trivet.runtime.nats_link import SERVER_TOO_OLD, check_version
from trivet.runtime.nats_provision import stream_configs
from trivet.runtime.nkeys import BAD_KEY, load_seed, make_key, public_key
from trivet.runtime.subjects import filter_of, matches
from trivet.testing.nats import server_binary


def plan(folder: Path, **changes: object) -> ServerPlan:
    keys = {i: make_key(folder / f"{i}.nk") for i in IDENTITIES}
    plain = {
        "name": "n1",
        "listen": "127.0.0.1:4222",
        "store_dir": folder / "data",
        "public_keys": keys,
    }
    return ServerPlan(**{**plain, **changes})  # type: ignore[arg-type]


def accepted(folder: Path, text: str) -> None:
    """The server itself finds nothing wrong."""
    file = folder / "nats.conf"
    file.write_text(text)
    done = subprocess.run(
        [server_binary(), "-t", "-c", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_server_accepts_one_alone(tmp_path: Path) -> None:
    text = server_config(plan(tmp_path, pid_file=tmp_path / "pid", monitor="127.0.0.1:8222"))
    accepted(tmp_path, text)
    assert '"sync_interval": "always"' in text


def test_the_server_accepts_a_cluster(tmp_path: Path) -> None:
    routes = ("nats-route://10.0.0.1:6222", "nats-route://10.0.0.2:6222")
    cluster = Cluster("trivet", "10.0.0.1:6222", routes)
    text = server_config(plan(tmp_path, cluster=cluster))
    accepted(tmp_path, text)
    for route in routes:
        assert route in text


def test_tls_names_its_files(tmp_path: Path) -> None:
    tls = Tls(Path("/etc/c.pem"), Path("/etc/k.pem"), Path("/etc/ca.pem"), verify=True)
    found = re.search(r"^tls: (\{.*?\n\})", server_config(plan(tmp_path, tls=tls)), re.M | re.S)
    assert found
    assert json.loads(found.group(1)) == {
        "cert_file": "/etc/c.pem",
        "key_file": "/etc/k.pem",
        "ca_file": "/etc/ca.pem",
        "verify": True,
    }


def test_seeds_never_come_into_the_configuration(tmp_path: Path) -> None:
    text = server_config(plan(tmp_path))
    for identity in IDENTITIES:
        assert load_seed(tmp_path / f"{identity}.nk") not in text
        assert public_key(tmp_path / f"{identity}.nk") in text


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    incomplete = plan(tmp_path, public_keys={i: "U" for i in IDENTITIES if i != "gateway"})
    with pytest.raises(ValueError, match="gateway"):
        server_config(incomplete)


SERVICES_WITH_BUCKET = ("compute", "storage", "network", "security")


@pytest.mark.parametrize("service", [*SERVICES_WITH_BUCKET, "gateway"])
def test_nobody_reaches_anothers(service: str) -> None:
    rights = permissions(service)
    publish = rights["publish"]["allow"]
    for other in SERVICES_WITH_BUCKET:
        mine = other == service
        for subject in (
            f"$KV.{other}.vm.lab.a",
            f"$JS.API.STREAM.MSG.GET.KV_{other}",
            f"$JS.API.CONSUMER.CREATE.KV_{other}.x.$KV.{other}.>",
            f"trivet.evt.{other}.vm.created.v1",
            f"trivet.beat.{other}.n1",
        ):
            assert any(matches(p, subject) for p in publish) is mine, subject
        hear = rights["subscribe"]["allow"]
        assert any(matches(p, f"trivet.{other}.vm.get.v1") for p in hear) is mine
        assert any(matches(p, f"trivet.{other}.vm.get.v1") for p in publish)
        assert any(matches(p, f"_INBOX.{other}.x.r.1") for p in hear) is mine
    for call in ("STREAM.CREATE.x", "STREAM.DELETE.EVENTS", "STREAM.PURGE.EVENTS"):
        assert not any(matches(p, f"$JS.API.{call}") for p in publish)


def test_the_gateway_keeps_answers_and_nothing_else() -> None:
    publish = permissions("gateway")["publish"]["allow"]
    allowed = ("$KV.gateway.once.ab12", "$JS.API.STREAM.MSG.GET.KV_gateway")
    denied = ("$KV.gateway.other", "$KV.gateway.once.a.b", "$JS.API.CONSUMER.CREATE.KV_gateway.x")
    assert all(any(matches(p, subject) for p in publish) for subject in allowed)
    assert not any(matches(p, subject) for p in publish for subject in denied)
    (answers,) = [c for c in stream_configs(1) if c["name"] == "KV_gateway"]
    assert answers["max_age"] == 24 * 3600 * 10**9
    assert answers["discard"] == "new"


@pytest.mark.parametrize("replicas", [1, 3])
def test_every_stream_is_on_disk_with_its_copies(replicas: int) -> None:
    configs = stream_configs(replicas)
    assert [c["name"] for c in configs] == [
        "EVENTS",
        *(f"KV_{s}" for s in SERVICES_WITH_BUCKET),
        "KV_gateway",
    ]
    assert {(c["storage"], c["num_replicas"]) for c in configs} == {("file", replicas)}


class TestKeys:
    def test_a_key_is_made_once_for_its_owner_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "keys" / "compute.nk"
        made = make_key(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert made.startswith("U")
        assert make_key(file) == made == public_key(file)
        assert [p.name for p in file.parent.iterdir()] == ["compute.nk"]

    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "compute.nk"
        make_key(file)
        file.chmod(0o640)
        with pytest.raises(Fatal, match="mode 640") as error:
            load_seed(file)
        assert error.value.code is BAD_KEY

    def test_no_file_and_no_seed_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(Fatal, match="No such file"):
            load_seed(tmp_path / "none.nk")
        broken = tmp_path / "broken.nk"
        broken.touch(0o600)
        broken.write_text("not a seed")
        with pytest.raises(Fatal, match="holds no seed"):
            load_seed(broken)


class Version:
    def __init__(self, major: int, minor: int) -> None:
        self.major, self.minor, self.patch = major, minor, 0


@pytest.mark.parametrize(
    ("major", "minor", "fine"),
    [(2, 9, False), (2, 11, False), (2, 12, True), (2, 15, True), (3, 0, True)],
)
def test_old_servers_are_refused(major: int, minor: int, fine: bool) -> None:
    if fine:
        check_version(Version(major, minor))
        return
    with pytest.raises(Fatal) as error:
        check_version(Version(major, minor))
    assert error.value.code is SERVER_TOO_OLD


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("b.>", "a.b", False),
    ],
)
def test_patterns(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits


def test_prefixes() -> None:
    assert filter_of("") == ">"
    assert filter_of("vm.") == "vm.>"
    with pytest.raises(ValueError, match="ends in"):
        filter_of("vm")
