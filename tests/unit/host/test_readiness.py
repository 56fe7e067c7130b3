"""A unit counts as ready only where the present supervisor says so."""

import json
from pathlib import Path

import pytest

from trivet.host.layout import Layout
from trivet.host.readiness import supervised


@pytest.mark.parametrize("ready", [True, False])
def test_what_the_supervisor_says(tmp_path: Path, ready: bool) -> None:
    layout = Layout(tmp_path)
    assert not supervised(layout, "gateway")
    layout.status_file.parent.mkdir(parents=True)
    layout.status_file.write_text(json.dumps({"processes": {"gateway": {"ready": ready}}}))
    assert supervised(layout, "gateway") is ready
    assert not supervised(layout, "compute")
