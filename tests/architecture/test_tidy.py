"""The shape of the tree as rules: documentation, length, names, what must not be in it."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
LONGEST_FILE = 500
# A ratchet: files that are longer today, with the length that they may not grow beyond.
LONGER: dict[str, int] = {}
BINARY = {".png", ".ico", ".woff2"}
# Put together from halves, so that this file does not name what it forbids.
FORBIDDEN = {
    "a package registry's host": re.compile(
        "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs"))
    ),
    "a path of one machine": re.compile(r"(?<![\w./-])/(?:wo" + r"rk|home)/[a-z]+"),
}


def tracked() -> list[str]:
    listed = subprocess.run(
        ("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached"),
        cwd=TOP, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout, or git is not installed")
    names = listed.stdout.decode().split("\0")
    return [name for name in names if name and (TOP / name).is_file()]


def modules() -> list[Path]:
    folders = ("core/src", "services", "plugins/src", "cli/src")
    return [
        path
        for folder in folders
        for path in sorted((TOP / folder).rglob("*.py"))
        if "__pycache__" not in path.parts and "build" not in path.parts
    ]


def test_trivet_is_a_namespace_of_all_distributions():
    inits = [str(p) for p in modules() if p.name == "__init__.py" and p.parent.name == "trivet"]
    assert inits == []


def test_every_module_says_what_it_is_for():
    silent = [
        str(p.relative_to(TOP))
        for p in modules()
        if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert silent == []


def test_files_stay_readable_in_one_go():
    lengths = {
        name: len((TOP / name).read_text().splitlines())
        for name in tracked()
        if name.endswith(".py")
    }
    too_long = {n: x for n, x in lengths.items() if x > LONGER.get(n, LONGEST_FILE)}
    assert too_long == {}
    shorter_now = [n for n in LONGER if lengths.get(n, 0) <= LONGEST_FILE]
    assert shorter_now == [], "take it off the ratchet"


def test_nothing_names_a_registry_or_somebodys_machine():
    found = []
    for name in tracked():
        if Path(name).suffix in BINARY:
            continue
        text = (TOP / name).read_text(errors="replace")
        found += [f"{name}: {what}: {m.group()}" for what, rule in FORBIDDEN.items()
                  for m in rule.finditer(text)]  # fmt: skip
    assert found == []


def test_test_files_have_names_of_their_own():
    names = [Path(n).name for n in tracked() if Path(n).name.startswith("test_")]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == set()


def test_tests_are_no_packages():
    assert [n for n in tracked() if n.startswith("tests/") and n.endswith("/__init__.py")
            and not n.startswith("tests/toy/")] == []  # fmt: skip
