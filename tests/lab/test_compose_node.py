"""A node in containers, on a real engine: up, a guest, down, and nothing left on the host.

It needs a Docker engine with Compose that runs privileged containers, and the base image (see
docs/containers.md); it takes the ports and names of an ordinary node, so that none may be there.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from trivet.host import traces
from trivet.host.layout import Layout

pytestmark = [pytest.mark.root, pytest.mark.soak]

TOP = Path(__file__).parents[2]
PROJECT = "trivet-test"


def _compose() -> tuple[str, ...]:
    """Compose v2 where it is there, else v1."""
    if shutil.which("docker"):
        asked = subprocess.run(
            ("docker", "compose", "version"), capture_output=True, timeout=60, check=False
        )
        if asked.returncode == 0:
            return ("docker", "compose")
    return ("docker-compose",)


COMPOSE = _compose()


def run(*argv: str, timeout_s: float = 900, check: bool = True) -> str:
    done = subprocess.run(
        argv, cwd=TOP, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert not check or done.returncode == 0, f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def compose(*arguments: str, timeout_s: float = 900, check: bool = True) -> str:
    return run(*COMPOSE, "-p", PROJECT, *arguments, timeout_s=timeout_s, check=check)


def trivet(*arguments: str) -> str:
    return compose("exec", "-T", "keeper", "trivet", *arguments)


@pytest.fixture(scope="module")
def node():
    for program in {"docker", COMPOSE[0]}:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    if run("docker", "info", check=False) == "":
        pytest.skip("no Docker engine answers")
    if not run("docker", "images", "-q", "debian:12").strip():
        pytest.skip("the base image debian:12 is not there, and a registry is not asked")
    if Layout().made_file.exists():
        pytest.skip("an ordinary node is on this machine")
    before = traces.snapshot(Layout())
    compose("up", "-d", "--build", timeout_s=1800)
    yield before
    compose("down", "-v", "--remove-orphans", check=False)


def test_a_guest_in_containers(node):
    deadline = time.monotonic() + 300
    while (
        "healthy"
        not in run(
            "docker", "inspect", "-f", "{{.State.Health.Status}}", container("keeper")
        ).split()
    ):
        assert time.monotonic() < deadline, compose("logs", "--tail=50")
        time.sleep(1)
    trivet("image", "build-tiny")
    trivet("vm", "create", "web", "--image", "tiny", "--network", "default", "--memory", "128MiB",
           "--disk", "1GiB", "--wait", "300")  # fmt: skip
    vm = json.loads(trivet("vm", "show", "web", "-o", "json"))
    assert vm["status"]["power"] == "running"
    assert vm["status"]["guest_ready"]
    run("docker", "restart", container("compute"))
    time_of = vm["status"]["started_at"]
    deadline = time.monotonic() + 120
    while json.loads(trivet("health", "-o", "json"))["status"] != "ok":
        assert time.monotonic() < deadline
        time.sleep(1)
    vm = json.loads(trivet("vm", "show", "web", "-o", "json"))
    assert (vm["status"]["power"], vm["status"]["started_at"]) == ("running", time_of)


def test_down_leaves_nothing(node):
    compose("down")
    after = traces.snapshot(Layout())
    left = traces.ours(Layout(), after)
    left.pop("files", None)
    assert left == {}
    more = traces.added(node, after)
    kinds = ("links", "tables", "loops", "namespaces")
    assert {kind: more[kind] for kind in kinds if kind in more} == {}
    assert after.sysctls == node.sysctls


def container(name: str) -> str:
    return compose("ps", "-q", name).strip()
