"""The pages hold together: links lead somewhere, and what is named is there."""

import re
from pathlib import Path

import pytest

from trivet.cli.docs import pages
from trivet.runtime.settings import Settings

TOP = Path(__file__).parents[2]
PAGES = sorted([TOP / "README.md", *(TOP / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on the usual forges."""
    found = HEADING.findall(without_code(page.read_text()))
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_links_lead_somewhere(page):
    dead = []
    for target in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_no_page_is_forgotten():
    """Each is reached from the README, over any number of links."""
    reached, found = set(), [TOP / "README.md"]
    while found:
        page = found.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        links = LINK.findall(page.read_text())
        found += [(page.parent / x.partition("#")[0]).resolve() for x in links if ":" not in x]
    assert [str(p.relative_to(TOP)) for p in PAGES if p not in reached] == []


def test_every_setting_is_on_its_page():
    page = pages()["settings.md"]
    sections = {n: f.annotation for n, f in Settings.model_fields.items()}
    for name, kind in sections.items():
        if name == "plugins":
            continue
        fields = getattr(kind, "model_fields", None)
        names = [f"TRIVET_{name}__{n}" for n in fields] if fields else [f"TRIVET_{name}"]
        assert [n for n in names if f"`{n.upper()}`" not in page] == []


def test_operating_names_what_lies_where():
    """The folders of the layout, each with what it is for."""
    from trivet.host.layout import Layout

    page, layout = (TOP / "docs/operating.md").read_text(), Layout()
    places = (
        layout.settings_file,
        layout.bus_config,
        layout.keys,
        layout.tls,
        layout.token_file,
        layout.bus_data,
        layout.gateway_data,
        layout.made_file,
        layout.log,
        layout.run,
        layout.venv,
    )
    assert [str(place) for place in places if f"`{place}`" not in page] == []
