"""The lock files are current, complete, and tell of no place."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from trivet.host.checkout import members
from trivet.host.locks import EXPORTS, dependencies_digest, recorded_digest

TOP = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)


@pytest.mark.parametrize("name", EXPORTS)
def test_a_lock_was_made_for_the_dependencies_as_they_are(name):
    text = (TOP / name).read_text()
    assert recorded_digest(text) == dependencies_digest(TOP), "run ./trivet lock"


@pytest.mark.parametrize("name", EXPORTS)
def test_a_lock_is_hashes_and_no_places(name):
    text = (TOP / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    blocks = re.split(r"\n(?=[a-z])", text)
    assert [b.splitlines()[0] for b in blocks if "==" in b and "--hash=sha256:" not in b] == []


def test_locks_serve_every_python_that_we_support():
    """A binary distribution must be there for each: a lock made from one machine's files is not."""
    text = (TOP / "requirements.lock").read_text()
    cffi = text[text.index("\ncffi==") : text.index("\nclick==")]
    assert cffi.count("--hash") > 20


def test_what_is_declared_is_pinned_as_declared():
    pins = dict(PIN.findall((TOP / "requirements.lock").read_text()))
    for member in members(TOP):
        project = tomllib.loads((member / "pyproject.toml").read_text())["project"]
        for text in project["dependencies"]:
            wanted = Requirement(text)
            if not wanted.name.startswith("trivet-"):
                assert wanted.specifier.contains(pins[wanted.name]), text
