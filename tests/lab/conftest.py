"""One node, and a cluster of three, for the lab's tests, beside what else lives on the machine."""

import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.host import processes, traces
from trivet.host.config_files import new_settings
from trivet.host.layout import Layout
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.node import LabNode

log = logging.getLogger(__name__)
TOP = Path(__file__).parents[2]
NO_LINGERING = "\n[network]\nlinger_s = 0\n"


@pytest.fixture(scope="session")
def lab_node() -> Iterator[LabNode]:
    """A node with the tiny image. An instance that `TRIVET_ROOT` names is used as it is, and
    kept; else one is made, and purged in the end."""
    if given := os.environ.get("TRIVET_ROOT"):
        yield LabNode(Layout(Path(given)), TOP)
        return
    root = Path(tempfile.mkdtemp(prefix="tv-lab-"))
    root.chmod(0o755)  # the node's own user has its programs there
    node = LabNode(Layout(root), TOP)
    # What is left over is looked for here, and a network that lingers is not.
    node.layout.settings_file.parent.mkdir(parents=True)
    node.layout.settings_file.write_text(new_settings(node.layout) + NO_LINGERING)
    try:
        node.trivet("up")
        node.trivet("image", "build-tiny")
        yield node
    finally:
        node.trivet("down", "--purge")
    root.rmdir()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of three nodes. One that `TRIVET_LAB_ROOT` names is used as it is, and kept."""
    if given := os.environ.get("TRIVET_LAB_ROOT"):
        yield Lab.find(Path(given))
        return
    root = Path(tempfile.mkdtemp(prefix="tv-cluster-"))
    root.chmod(0o755)  # the nodes' own user has its programs there
    made = Lab.create(root, 3)
    try:
        made.up(log.info)
        yield made
    finally:
        made.down(log.info)
    assert left_of(made) == []


@pytest.fixture(scope="module")
def tiny(lab: Lab) -> str:
    """The name of the tiny image in the lab, made as a person makes it."""
    env = {**os.environ, **lab.client_env()}
    command = (TOP / "trivet", "image", "build-tiny")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return "tiny"


def left_of(lab: Lab) -> list[str]:
    """What is still there of a lab that was taken down."""
    prefix, root = lab.plan.base.prefix, str(lab.plan.root)
    return [
        *(name for name in traces.namespaces() if name.startswith(f"{prefix}-")),
        *(link for link in traces.links() if traces.is_our_link(prefix, link)),
        *(file for file in traces.loops().values() if file.startswith(root)),
        *(point for point in traces.mounts() if point.startswith(root)),
        *(w for pid in processes.pids() for w in processes.arguments(pid) if root in w),
        *([root] if Path(root).exists() else []),
    ]
