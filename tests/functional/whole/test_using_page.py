"""docs/using.md: every example is run, in order, and shows what the page says it shows."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[3]
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_page_is_true(node: Any, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TRIVET_CONFIG": str(tmp_path / "none.toml"),
        "TRIVET_URL": f"http://{node.address}",
        "TRIVET_TOKEN": node.http.headers["Authorization"].split()[1],
    }
    page = await asyncio.to_thread((TOP / "docs" / "using.md").read_text)
    ran = 0
    for language, name, text in BLOCK.findall(page):
        if name:
            await asyncio.to_thread((tmp_path / name).write_text, text)
        elif language == "console":
            for command, shown in commands(text):
                await run(tmp_path, env, ["bash", "-c", command], shown)
                ran += 1
        elif language == "python":
            await run(tmp_path, env, [sys.executable, "-c", text], [])
            ran += 1
    assert ran > 20


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each command of a block with the lines that are shown under it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


async def run(folder: Path, env: dict[str, str], argv: list[str], shown: list[str]) -> None:
    done = await asyncio.to_thread(
        subprocess.run, argv, cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        pytest.fail(f"{argv[-1]}\n{done.stdout}\n{done.stderr}")
    plain = " ".join(done.stdout.split())
    for line in shown:
        assert " ".join(line.split()) in plain, f"{argv[-1]}: no {line!r} in\n{done.stdout}"
