"""The status page in a real browser, where one is installed: what it is allowed to load, that it
takes a token as a person types it, and that what comes from the cluster stays text.

Chromium is driven over its own debugging protocol; nothing but the browser itself is needed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to open the page")

PATIENCE_S = 90.0
SIGN_IN = """
document.getElementById("token").value = %s;
document.getElementById("sign-in").requestSubmit();
"""
SHOWN = """
JSON.stringify({
  state: document.getElementById("state").textContent,
  typed: document.getElementById("token").value,
  vms: document.getElementById("vms").innerText,
  nodes: document.getElementById("nodes").innerText,
  events: document.getElementById("events").innerText,
  scripts: document.scripts.length,
  bold: document.getElementsByTagName("b").length,
})
"""


class Page:
    """One tab. `complaints`: what the browser said against the page."""

    def __init__(self, line: ClientConnection) -> None:
        self._line = line
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []

    async def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        await self._line.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(await self._line.recv())
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]

    async def run(self, script: str) -> Any:
        done = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, holds: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                shown: dict[str, Any] = json.loads(await self.run(SHOWN))
                if holds(shown):
                    return shown
                await asyncio.sleep(0.1)


@pytest.fixture
async def page(node: Any, tmp_path: Path) -> AsyncIterator[Page]:
    """The page of a whole node, loaded."""
    profile = tmp_path / "profile"
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
    where = (f"--user-data-dir={profile}", "--remote-debugging-port=0", f"http://{node.address}/")
    assert CHROMIUM is not None
    quiet = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, *where, stdout=quiet, stderr=quiet
    )
    try:
        async with connect(await tab(profile, node.address), max_size=None) as line:
            made = Page(line)
            await made.ask("Runtime.enable")
            await made.ask("Log.enable")
            await made.ask("Page.reload")
            async with asyncio.timeout(PATIENCE_S):
                ready = "document.readyState == 'complete' && !!document.getElementById('sign-in')"
                while not await made.run(ready):  # noqa: ASYNC110 - it is another side
                    await asyncio.sleep(0.1)
            yield made
    finally:
        browser.kill()
        await browser.wait()


async def tab(profile: Path, address: str) -> str:
    """The debugging address of the tab that shows the page."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(PATIENCE_S):
        while not file.exists() or file.read_text().count("\n") < 1:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        port, browser = file.read_text().split()
        async with connect(f"ws://127.0.0.1:{port}{browser}", max_size=None) as line:
            while True:
                targets = (await Page(line).ask("Target.getTargets"))["targetInfos"]
                for target in targets:
                    if target["type"] == "page" and address in target["url"]:
                        return f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
                await asyncio.sleep(0.1)


async def test_a_person_signs_in_and_sees_what_is_and_what_comes(node: Any, page: Page) -> None:
    vms = "/v1/projects/default/vms"
    await node.settled(vms, meta={"name": "web"}, spec={"power": "stopped"})
    token = node.http.headers["Authorization"].split()[1]
    await page.run(SIGN_IN % json.dumps(token))
    shown = await page.until(lambda s: s["state"] == "live" and "web" in s["vms"])
    assert shown["typed"] == ""
    assert "n1\tready" in shown["nodes"]
    await node.settled(vms, meta={"name": "later"}, spec={"power": "stopped"})
    shown = await page.until(lambda s: "later" in s["vms"] and "vm.created" in s["events"])
    assert (shown["scripts"], shown["bold"]) == (1, 0)
    assert page.complaints == []


async def test_a_token_that_proves_nothing_is_told(page: Page) -> None:
    await page.run(SIGN_IN % json.dumps("nothing"))
    await page.until(lambda s: "proves nothing" in s["state"])


async def test_what_is_put_into_the_page_does_not_run(page: Page) -> None:
    """Were there a hole, the policy would still stop it."""
    await page.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.setAttribute('onerror', 'window.hacked = 2');"
        "i.src = 'http://127.0.0.1:9/x'; document.body.append(i);"
    )
    assert await page.run("window.hacked === undefined")
    assert any("Content Security Policy" in said for said in page.complaints)
