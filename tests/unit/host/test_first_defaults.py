"""What a new cluster begins with, and what `up` writes for its caller."""

import tomllib
from ipaddress import ip_network
from pathlib import Path

import pytest

from trivet.contracts.network.network import NetworkSpec
from trivet.contracts.storage.pool import PoolSpec
from trivet.host import caller, made
from trivet.host.config_files import new_settings
from trivet.host.defaults import (
    file_members,
    network_document,
    pool_document,
    pool_size_gib,
    subnet_v6,
)
from trivet.host.layout import Layout
from trivet.runtime.settings import Settings


@pytest.mark.parametrize(
    ("free_gib", "size_gib"), [(0, 4), (5, 4), (100, 60), (1000, 600), (100_000, 1024)]
)
def test_the_pool_follows_the_free_space_within_bounds(free_gib, size_gib):
    assert pool_size_gib(free_gib * 2**30) == size_gib


def test_the_documents_are_what_the_api_accepts():
    PoolSpec.model_validate(pool_document(file_members(["n1", "n2"], 100 * 2**30))["spec"])
    NetworkSpec.model_validate(network_document("n1", "abc")["spec"])


def test_a_node_chooses_the_same_local_subnet_again_and_another_node_another():
    first = ip_network(subnet_v6("n1", "abc"))
    assert first == ip_network(subnet_v6("n1", "abc"))
    assert first != ip_network(subnet_v6("n2", "abc"))
    assert first.prefixlen == 64
    assert first.subnet_of(ip_network("fd00::/8"))


@pytest.mark.parametrize("root", ["/", "/srv/some where"])
def test_new_settings_are_settings(root):
    layout = Layout(Path(root))
    settings = Settings.model_validate(tomllib.loads(new_settings(layout)))
    assert settings.state_dir == layout.state
    assert settings.prefix == layout.prefix
    assert settings.security.bootstrap_token_file == layout.token_file


def test_a_callers_own_configuration_comes_back(tmp_path):
    layout = Layout(tmp_path / "root")
    layout.tls.mkdir(parents=True)
    layout.ca_file.write_text("CA")
    file = caller.client_file(layout, {})
    file.path.parent.mkdir(parents=True)
    file.path.write_text("mine")
    for token in ("t1", "t2"):
        caller.write(layout, file, "https://x", token)
    assert tomllib.loads(file.path.read_text())["token"] == "t2"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert made.load(layout).client_files == (file.path,)
    caller.remove_all(layout)
    assert file.path.read_text() == "mine"
