"""The status page: what it is made of, what it lets in, and what it shows of a whole node."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trivet.gateway import status_page

SCRIPT = Path(status_page.__file__).parent / "page" / "page.js"
STUB = Path(__file__).parent / "page_in_node.js"


STATUS = ["/console", "/page/page.css", "/page/page.js"]
CONSOLE = ["/", "/page/console.js", "/page/page.css", "/page/terminal.js"]


@pytest.mark.parametrize(("page", "made_of"), [("/", STATUS), ("/console", CONSOLE)])
async def test_nothing_is_inline_and_everything_is_there(
    node: Any, page: str, made_of: list[str]
) -> None:
    reply = await node.http.get(page, headers={"Authorization": ""})
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|javascript:", reply.text)
    parts = re.findall(r'(?:src|href)="([^"]+)"', reply.text)
    assert sorted(parts) == made_of
    for part in parts:
        got = await node.http.get(part, headers={"Authorization": ""})
        assert (got.status_code, got.headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", got.text)
        assert not re.search(r"https?://|localStorage|sessionStorage|document\.cookie", got.text)


TERMINAL = """
const { Terminal, spoken } = require(process.argv[1]);
let said = "";
const terminal = new Terminal(10, 3, (text) => { said += text; });
const seen = [];
for (const text of JSON.parse(process.argv[2])) {
  terminal.feed(text);
  seen.push([terminal.text(), terminal.cursor().line, terminal.cursor().column]);
}
const keys = [
  { key: "a" }, { key: "C", ctrlKey: true }, { key: "Enter" }, { key: "ArrowUp" },
  { key: "Shift" }, { key: "b", altKey: true }, { key: "v", metaKey: true },
].map(spoken);
console.log(JSON.stringify({ seen, said, keys }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_terminal_understands_what_shells_say() -> None:
    script = SCRIPT.with_name("terminal.js")
    told = ["hi\r\nab\x1b[6n", "\x1b[31", "mred\x1b[0m\b\b\x1b[K!", "\x1b]0;t\x07\r\nx"]
    told += ["0123456789", "\x1b[1;2H\x1b[J", "\x1b[999999999A\x1b[5P", "<b>"]
    argv = ["node", "-e", TERMINAL, str(script), json.dumps(told)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["said"] == "\x1b[2;3R"
    assert answer["seen"] == [
        ["hi\nab", 1, 2],
        ["hi\nab", 1, 2],
        ["hi\nabr!", 1, 4],
        ["hi\nabr!\nx", 2, 1],
        ["hi\nabr!\nx012345678\n9", 3, 1],
        ["hi\na\n\n", 1, 1],
        ["hi\na\n\n", 1, 1],
        ["hi\na<b>\n\n", 1, 4],
    ]
    assert answer["keys"] == ["a", "\x03", "\r", "\x1b[A", None, "\x1bb", None]


async def run_page(address: str, token: str) -> dict[str, Any]:
    """What the page shows once it is live."""
    argv = ["node", str(STUB), str(SCRIPT), f"http://{address}", token]
    done = await asyncio.to_thread(
        subprocess.run, argv, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
async def test_it_shows_what_is_and_what_comes(node: Any) -> None:
    token = node.http.headers["Authorization"].split()[1]
    await node.settled("/v1/projects/default/vms", meta={"name": "web"}, spec={"power": "stopped"})
    page = asyncio.create_task(run_page(node.address, token))
    number = 0
    while not page.done():
        number += 1
        body = {"meta": {"name": f"<b>n{number}"}, "spec": {}}
        assert (await node.http.post("/v1/users", json=body)).status_code == 400
        await node.http.post("/v1/users", json={"meta": {"name": f"user-{number}"}, "spec": {}})
        await asyncio.sleep(0.2)
    shown = await page
    assert (shown["state"], shown["token"]) == ("live", ""), "the typed token is not left there"
    assert shown["nodes"][1].startswith("n1\tready")
    assert shown["vms"][1].split("\t")[:4] == ["default", "web", "ready", "stopped"]
    assert shown["alarms"][0].startswith("Severity")
    assert "security.user.created" in shown["events"][1]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
async def test_a_token_that_proves_nothing_is_told(node: Any) -> None:
    shown = await run_page(node.address, "nothing")
    assert "proves nothing" in shown["state"]
