"""compose.yaml and Dockerfile say of a node what the layout and the supervisor say of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from trivet.host.container import PARTS, mark
from trivet.host.hypervisor import libvirtd_of
from trivet.host.layout import SERVICES, USER, Layout
from trivet.host.units import BUS, LIBVIRTD, units_of

TOP = Path(__file__).parents[3]
HELPERS = {"setup", "provision", "keeper"}
COMPOSE: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (TOP / "Dockerfile").read_text()
UNITS = {unit.name: unit for unit in units_of(Layout())}


def before(name: str) -> set[str]:
    """Everything that is started before a container, and so stopped after it."""
    named = set(CONTAINERS[name].get("depends_on", {}))
    return named | {above for one in named for above in before(one)}


def test_every_process_of_a_node_is_a_container():
    assert set(CONTAINERS) == set(UNITS) | HELPERS
    assert set(UNITS) == {BUS, LIBVIRTD, *SERVICES}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_run_as_the_supervisor_runs_it(name):
    _, *arguments = UNITS[name].argv
    assert CONTAINERS[name]["command"] == ["python", *arguments]


def test_the_bus_is_run_as_the_supervisor_runs_it():
    program, *arguments = UNITS[BUS].argv
    assert CONTAINERS[BUS]["command"] == [Path(program).name, *arguments]


@pytest.mark.parametrize("name", sorted(HELPERS | {LIBVIRTD}))
def test_other_parts_are_there(name):
    *run, part = CONTAINERS[name]["command"]
    assert run == ["python", "-m", "trivet.host.container"]
    assert part in PARTS
    assert part == name


@pytest.mark.parametrize("name", sorted(UNITS))
def test_users_and_rights_are_those_of_the_unit(name):
    user = UNITS[name].user
    assert CONTAINERS[name].get("user") == user
    assert CONTAINERS[name]["privileged"] is (user is None)
    assert user in (None, USER)


@pytest.mark.parametrize("name", sorted(UNITS))
def test_what_must_be_there_first_is(name):
    assert set(UNITS[name].after) <= before(name)
    if BUS in UNITS[name].after and name != BUS:
        assert "provision" in before(name), "the bus has its buckets"


@pytest.mark.parametrize("name", SERVICES)
def test_the_bus_outlives_who_needs_it(name):
    """Said directly: a container that has ended (`provision`) keeps no order of stopping."""
    assert BUS in CONTAINERS[name]["depends_on"]


def test_setup_is_first_and_last_and_the_keeper_last_and_first():
    others = set(CONTAINERS) - {"setup"}
    assert all("setup" in before(name) for name in others)
    assert before("keeper") == others - {"keeper"} | {"setup"}


def test_what_is_waited_for_can_be_told():
    for name, container in CONTAINERS.items():
        for needed, how in container.get("depends_on", {}).items():
            told = CONTAINERS[needed]
            if how["condition"] == "service_healthy":
                *_, file = told["healthcheck"]["test"]
                assert file in (str(mark(needed)), str(libvirtd_of(Layout()).socket)), name
            if how["condition"] == "service_completed_successfully":
                assert told["restart"] == "on-failure", name


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_container_has_what_a_node_keeps(name):
    layout, container = Layout(), CONTAINERS[name]
    targets = {mount.split(":")[1] for mount in container["volumes"]}
    assert {str(layout.etc), str(layout.state), str(layout.run), "/dev"} <= targets
    assert container["network_mode"] == "host"
    assert container["image"] == "trivet-node"
    assert container["init"] is True, "or guests that ended stay as zombies, and libvirt waits"
    used = {m.split(":")[0] for m in container["volumes"] if not m.startswith("/")}
    assert used <= set(COMPOSE["volumes"])


def test_only_one_container_builds_the_image():
    assert [name for name, c in CONTAINERS.items() if "build" in c] == ["setup"]


def test_the_image_is_made_of_what_a_node_is_made_of():
    layout = Layout()
    (base,) = [line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    assert base == "debian:12", "a plain tag, of no registry"
    assert f"PATH={layout.venv}/bin:" in DOCKERFILE
    for part in ("packages.txt", "requirements-node.lock", "--require-hashes", "ARG SERVICE"):
        assert part in DOCKERFILE
    for member in ("./core", "./plugins", "./services/*", "./cli"):
        assert member in DOCKERFILE


def test_the_page_names_every_container():
    page = (TOP / "docs/containers.md").read_text()
    assert [name for name in CONTAINERS if f"`{name}`" not in page] == []
