"""One node for the lab's tests, beside whatever else lives on the machine."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.host.layout import Layout
from trivet.testing.lab.node import LabNode

TOP = Path(__file__).parents[2]


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
    try:
        node.trivet("up")
        node.trivet("image", "build-tiny")
        yield node
    finally:
        node.trivet("down", "--purge")
    root.rmdir()
