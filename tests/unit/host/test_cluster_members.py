"""What follows for one node from the list of a cluster's members."""

import datetime as dt
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from trivet.contracts.errors import Refused
from trivet.host.certificates import ensure_authority, ensure_issued
from trivet.host.cluster import Cluster, Member, Membership, keep_membership, membership
from trivet.host.config_files import ensure_settings, new_settings, write_bus_config
from trivet.host.keys import ensure_keys
from trivet.host.layout import SERVICES, Layout
from trivet.host.units import environment, units_of
from trivet.runtime.settings import Settings
from trivet.testing.nats import server_binary

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def three(**keys: dict[str, str]) -> Cluster:
    """Three members, the last of which only votes."""
    members = tuple(
        Member(
            name=name,
            address=f"10.0.0.{number}",
            storage_address=f"10.1.0.{number}",
            witness=name == "n3",
            public_keys=keys.get(name, {}),
        )
        for number, name in enumerate(("n1", "n2", "n3"), 1)
    )
    return Cluster(name="c", members=members)


def test_a_node_turns_to_its_own_server_first_and_those_who_lost_theirs_are_spread():
    cluster = three()
    assert cluster.bus_urls("n1") == tuple(f"tls://10.0.0.{n}:4222" for n in (1, 2, 3))
    assert cluster.bus_urls("n3") == tuple(f"tls://10.0.0.{n}:4222" for n in (3, 1, 2))
    with pytest.raises(Refused):
        cluster.bus_urls("n4")


def test_addresses_of_both_families_make_urls():
    cluster = Cluster(name="c", members=(Member(name="a", address="fd00::1"),))
    assert cluster.bus_urls("a") == ("tls://[fd00::1]:4222",)
    assert cluster.routes() == ("nats-route://[fd00::1]:6222",)


@pytest.mark.parametrize(("members", "copies"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_there_are_at_most_three_copies(members, copies):
    named = tuple(Member(name=f"n{n}", address=f"10.0.0.{n}") for n in range(1, members + 1))
    assert Cluster(name="c", members=named).copies == copies


def test_a_members_settings_follow_from_the_list(tmp_path):
    known = Membership(node="n2", cluster=three())
    text = new_settings(Layout(tmp_path), known)
    settings = Settings.model_validate(tomllib.loads(text))
    assert settings.node == "n2"
    assert settings.address == settings.gateway.host == "10.0.0.2"
    assert settings.storage.address == settings.network.vtep == "10.1.0.2"
    assert settings.bus.urls[0] == "tls://10.0.0.2:4222"
    assert settings.bus.replicas == 3
    assert not settings.witness


def test_a_witness_runs_the_bus_alone(tmp_path):
    text = new_settings(Layout(tmp_path), Membership(node="n3", cluster=three()))
    assert Settings.model_validate(tomllib.loads(text)).witness
    assert [unit.name for unit in units_of(Layout(tmp_path), witness=True)] == ["nats"]
    assert {unit.name for unit in units_of(Layout(tmp_path))} > set(SERVICES)


def test_a_membership_is_kept(tmp_path):
    layout = Layout(tmp_path)
    layout.etc.mkdir(parents=True)
    assert membership(layout) is None
    known = Membership(node="n1", cluster=three())
    keep_membership(layout, known)
    assert membership(layout) == known


def test_each_bus_lets_in_the_services_of_every_member_and_no_others(tmp_path):
    layouts = {name: Layout(tmp_path / name) for name in ("n1", "n2", "n3")}
    keys = {name: ensure_keys(layout.keys, {}) for name, layout in layouts.items()}
    cluster = three(**keys)
    ensure_authority(tmp_path / "ca", NOW)
    for name, layout in layouts.items():
        layout.etc.mkdir(parents=True)
        known = Membership(node=name, cluster=cluster)
        ensure_issued(tmp_path / "ca", layout.tls, [name], ["10.0.0.1"], os.geteuid(), NOW)
        assert write_bus_config(layout, ensure_settings(layout, known), keys[name], known)
        assert not write_bus_config(layout, ensure_settings(layout, known), keys[name], known)
        text = layout.bus_config.read_text()
        users = re.findall(r'"nkey": "(\w+)"', text)
        assert sorted(users) == sorted(k for mine in keys.values() for k in mine.values())
        assert '"verify": true' in text
        done = subprocess.run(
            [server_binary(), "-t", "-c", str(layout.bus_config)], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_nodes_certificates_are_of_one_authority_and_serve_both_ways(tmp_path):
    ensure_authority(tmp_path / "ca", NOW)
    made = []
    for name in ("n1", "n2"):
        issued = tmp_path / "ca", tmp_path / name, [name], ["10.0.0.1"], os.geteuid(), NOW
        assert ensure_issued(*issued)
        assert not ensure_issued(*issued)
        assert not (tmp_path / name / "ca.key").exists()
        made.append(x509.load_pem_x509_certificate((tmp_path / name / "server.pem").read_bytes()))
    authority = x509.load_pem_x509_certificate((tmp_path / "n1/ca.pem").read_bytes())
    for certificate in made:
        certificate.verify_directly_issued_by(authority)
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert len(list(uses)) == 2
    assert made[0].public_key() != made[1].public_key()


def test_the_list_holds_no_secret(tmp_path):
    layout = Layout(tmp_path)
    layout.etc.mkdir(parents=True)
    seeds = ensure_keys(layout.keys, {})
    keep_membership(layout, Membership(node="n1", cluster=three(n1=seeds)))
    told = json.loads(Path(layout.etc / "cluster.json").read_text())
    assert all(key.startswith("U") for key in told["cluster"]["members"][0]["public_keys"].values())


def test_a_clock_of_the_labs_is_passed_on_and_nothing_else_that_is_preloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "/clock.so")
    monkeypatch.delenv("LAB_CLOCK", raising=False)
    assert "LD_PRELOAD" not in environment(Layout(tmp_path))
    monkeypatch.setenv("LAB_CLOCK", "/clock")
    passed = environment(Layout(tmp_path))
    assert (passed["LD_PRELOAD"], passed["LAB_CLOCK"]) == ("/clock.so", "/clock")
