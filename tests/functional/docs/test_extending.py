"""docs/extending.md, followed to the letter in a copy of the checkout.

Blocks that name a file are written, diffs are applied, commands are run, in the order of the
page. What a reader would see, this test sees.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SOURCES = ("core", "services", "plugins", "cli", "tests/functional", "pyproject.toml")


def test_the_page_is_true(tmp_path: Path) -> None:
    for name in SOURCES:
        source = TOP / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / name)
    ran = 0
    for language, path, text in BLOCK.findall((TOP / "docs" / "extending.md").read_text()):
        if path:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        elif language == "diff":
            apply = ["patch", "--strip=1", "--fuzz=0"]
            subprocess.run(apply, input=text, text=True, cwd=tmp_path, check=True)
        elif language == "console":
            for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
                run_in(tmp_path, command)
                ran += 1
    assert ran == 2


def run_in(copy: Path, command: str) -> None:
    """Run a command of the page; the copy's packages go before the installed ones."""
    folders = [*copy.glob("*/src"), *copy.glob("services/*/src"), *copy.glob("examples/*/src")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    argv = command.replace(".venv/bin/python", sys.executable).split()
    run = subprocess.run(argv, cwd=copy, env=env, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(f"{command}\n{run.stdout}\n{run.stderr}")
