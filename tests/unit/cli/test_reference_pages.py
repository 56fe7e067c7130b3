"""The reference pages are what the declarations say now, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trivet.cli.docs import pages
from trivet.contracts.endpoint import SERVICES, declared

TOP = Path(__file__).parents[3]
PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    written = (TOP / "docs" / name).read_text()
    assert written == PAGES[name], "run `python -m trivet.cli.docs docs`"


def test_every_code_in_the_sources_is_on_the_page() -> None:
    declaration = re.compile(r'= code\(\s*"([a-z_.]+)"')
    sources = (
        path
        for part in ("core", "cli", "services", "plugins")
        for path in (TOP / part).glob("**/src/**/*.py")
    )
    found = {code for path in sources for code in declaration.findall(path.read_text())}
    assert found
    assert {code for code in found if f"| `{code}` |" not in PAGES["errors.md"]} == set()


def test_every_operation_is_on_the_page() -> None:
    for service in SERVICES:
        for endpoint in declared(service):
            assert f"| `{endpoint.op}` |" in PAGES["operations.md"]
