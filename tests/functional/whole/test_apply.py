"""`trivet apply` against a whole node: made, changed, pruned, and given back as it was shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trivet.cli.__main__ import run

SITE = """
kind: Vm
meta: {name: web, labels: {site: shop}}
spec:
  memory_mib: 64
  disks: [{size_gib: 1}]
  nics: [{network: lan, security_groups: [front]}]
---
kind: Volume
meta: {name: data, labels: {site: shop}}
spec: {size_gib: 2}
---
items:
- kind: Network
  meta: {name: lan, labels: {site: shop}}
  spec: {subnets: [10.9.0.0/24]}
- {"kind": "SecurityGroup", "meta": {"name": "front", "labels": {"site": "shop"}}, "spec": {}}
---
kind: Pool
meta: {name: default, labels: {site: shop}}
spec: {members: [{node: n1, file_gib: 10}]}
"""
Shell = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def shell(node: Any, monkeypatch: Any, capsys: Any, tmp_path: Path) -> Shell:
    monkeypatch.setenv("TRIVET_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("TRIVET_URL", f"http://{node.address}")
    monkeypatch.setenv("TRIVET_TOKEN", node.http.headers["Authorization"].split()[1])

    async def ask(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(run, words)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return ask


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "site.yaml"
    made.write_text(SITE)
    return made


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_a_whole_site_is_made_and_then_as_it_was(shell: Shell, file: Path) -> None:
    _, out, _ = await shell("apply", "-f", str(file), "--dry-run")
    assert "would be: 5 created" in out
    code, out, err = await shell("apply", "-f", str(file), "--wait", "30")
    assert (code, err.count("failed")) == (0, 0), err
    assert out.splitlines()[-1] == "5 created, 0 changed, 0 as they were"
    order = [line.split()[1] for line in out.splitlines() if line.startswith("+")]
    assert order.index("network") < order.index("vm")
    _, out, _ = await shell("apply", "-f", str(file))
    assert out.splitlines()[-1] == "0 created, 0 changed, 5 as they were"
    write(file, SITE.replace("size_gib: 2", "size_gib: 3"))
    for words, told in (
        (("--dry-run",), "would be: 0 created, 1 changed, 4 as they were"),
        ((), "0 created, 1 changed, 4 as they were"),
        ((), "0 created, 0 changed, 5 as they were"),
    ):
        _, out, _ = await shell("apply", "-f", str(file), *words)
        assert out.splitlines()[-1] == told
        assert ("    size_gib: 2 -> 3" in out.splitlines()) == ("1 changed" in told)


async def test_what_is_shown_can_be_given_back(shell: Shell, file: Path, tmp_path: Path) -> None:
    await shell("apply", "-f", str(file), "--wait", "30")
    back = tmp_path / "back.yaml"
    nouns = ("vm", "volume", "network", "security-group", "port", "pool", "node", "project", "role")
    for noun in (*nouns, "user"):
        for format_ in ("yaml", "json"):
            _, listed, _ = await shell(noun, "list", "-o", format_)
            items = yaml.safe_load(listed)["items"]
            assert items, noun
            write(back, listed)
            code, out, err = await shell("apply", "-f", str(back))
            assert (code, err) == (0, ""), (noun, out)
            assert out.splitlines()[-1] == f"0 created, 0 changed, {len(items)} as they were"
    _, shown, _ = await shell("vm", "show", "web", "-o", "yaml")
    write(back, shown)
    _, out, _ = await shell("apply", "-f", str(back))
    assert out.splitlines() == ["= vm default/web", "0 created, 0 changed, 1 as they were"]


async def test_a_failure_says_what_was_and_was_not_applied(shell: Shell, file: Path) -> None:
    write(file, SITE.replace("subnets: [10.9.0.0/24]", "subnets: [10.9.0.0/99]"))
    code, out, err = await shell("apply", "-f", str(file))
    assert code == 1
    assert "subnets" in err
    lines = out.splitlines()
    assert "! network lan: failed" in lines
    assert "  vm web: not applied" in lines
    assert lines[-1].endswith("apply again when it is mended")
    write(file, SITE)
    code, out, _ = await shell("apply", "-f", str(file))
    assert code == 0
    _, out, _ = await shell("apply", "-f", str(file))
    assert out.splitlines()[-1] == "0 created, 0 changed, 5 as they were"


async def test_prune_deletes_what_is_no_more_named_and_nothing_else(
    node: Any, shell: Shell, file: Path
) -> None:
    await shell("apply", "-f", str(file), "--wait", "30")
    await shell("volume", "create", "mine", "--size", "1GiB")
    await shell("volume", "create", "other", "--size", "1GiB", "--label", "site=blog")
    kept = "\n---\n".join(d for d in SITE.split("---") if "kind: Vm" not in d and "data" not in d)
    write(file, kept)
    _, out, _ = await shell("apply", "-f", str(file), "--prune", "site=shop", "--dry-run")
    gone = [line for line in out.splitlines() if line.startswith("-")]
    assert gone == ["- vm default/web", "- volume default/data"]
    assert "2 deleted" in out
    assert (await shell("vm", "show", "web"))[0] == 0
    code, _, _ = await shell("apply", "-f", str(file), "--prune", "site=shop")
    assert code == 0
    async with asyncio.timeout(60):
        while (await shell("vm", "show", "web"))[0] == 0:  # noqa: ASYNC110 - it goes by itself
            await asyncio.sleep(0.05)
    assert (await shell("volume", "show", "mine"))[0] == 0
    assert (await shell("volume", "show", "other"))[0] == 0
    assert (await shell("network", "show", "lan"))[0] == 0


async def test_prune_wants_its_label_on_every_document(shell: Shell, file: Path) -> None:
    for label in ("site=blog", "site"):
        code, _, err = await shell("apply", "-f", str(file), "--prune", label)
        assert code == 2, err
