"""The status page: what it is made of, what it lets in, and what it shows of a whole node."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trivet.gateway import status_page

SCRIPT = Path(status_page.__file__).parent / "page" / "page.js"
STUB = Path(__file__).parent / "page_in_node.js"


STATUS = ["/console", "/page/page.css", "/page/page.js", "/screen"]
CONSOLE = ["/", "/page/console.js", "/page/join.js", "/page/page.css", "/page/terminal.js"]
CONSOLE += ["/screen"]
SCREEN = ["/", "/console", "/page/join.js", "/page/page.css", "/page/rfb.js", "/page/screen.js"]


@pytest.mark.parametrize(
    ("page", "made_of"), [("/", STATUS), ("/console", CONSOLE), ("/screen", SCREEN)]
)
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


VIEWER = """
const { Rfb, keysym } = require(process.argv[1]);
const seen = [], said = [];
const told = (what) => (...more) => seen.push([what, ...more.map((m) => m?.length ? [...m] : m)]);
const viewer = new Rfb({
  send: (bytes) => said.push(Buffer.from(bytes).toString("hex")),
  size: told("size"), picture: told("picture"), copy: told("copy"), bell: told("bell"),
});
let error = null;
try {
  const parts = JSON.parse(process.argv[2]);
  for (const part of parts) viewer.feed(Uint8Array.from(Buffer.from(part, "hex")));
} catch (raised) { error = raised.message; }
said.push("keys");
viewer.key(true, keysym("ArrowUp")); viewer.pointer(5, 99, -3);
const keys = ["a", "\u20ac", "F12", "Dead"].map(keysym);
console.log(JSON.stringify({ seen, said, error, keys }));
"""

HELLO = [b"RFB 003.008\n", b"\x02\x10\x01", bytes(4), struct.pack(">HH16xI", 2, 1, 3) + b"vm1"]
RED_BLUE = bytes([255, 0, 0, 0, 0, 0, 255, 0])


def update(*rectangles: bytes) -> bytes:
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(rectangles)


def rectangle(x: int, y: int, width: int, height: int, how: int, more: bytes = b"") -> bytes:
    return struct.pack(">HHHHi", x, y, width, height, how) + more


def viewed(*told: bytes) -> dict[str, Any]:
    """What a viewer makes of that, however it comes in pieces."""
    script = str(SCRIPT.with_name("rfb.js"))
    whole = b"".join(told)
    answers = []
    for size in (1, 7, len(whole)):
        parts = [whole[at : at + size].hex() for at in range(0, len(whole), size)]
        argv = ["node", "-e", VIEWER, script, json.dumps(parts)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] == answers[2]
    answer: dict[str, Any] = answers[0]
    return answer


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_viewer_understands_what_a_screen_says() -> None:
    answer = viewed(
        *HELLO,
        update(rectangle(0, 0, 2, 1, 0, RED_BLUE), rectangle(1, 0, 1, 1, 1, bytes(4))),
        b"\x02\x03\0\0\0" + struct.pack(">I", 4) + b"clip",
        update(rectangle(0, 0, 3, 2, -223)),
    )
    assert answer["error"] is None
    assert answer["seen"] == [
        ["size", 2, 1, ["v", "m", "1"]],
        ["picture", 0, 0, 2, 1, [255, 0, 0, 255, 0, 0, 255, 255]],
        ["copy", 0, 0, 1, 0, 1, 1],
        ["bell"],
        ["size", 3, 2, None],
    ]
    assert answer["said"] == [
        b"RFB 003.008\n".hex(),
        "01",
        "01",
        "00000000" + "20180001" + "00ff00ff00ff" + "000810" + "000000",
        "02000003" + "00000001" + "00000000" + "ffffff21",
        "0300" + "00000000" + "00020001",
        "0301" + "00000000" + "00020001",
        "0301" + "00000000" + "00030002",
        "keys",
        "04010000" + "0000ff52",
        "0505" + "0002" + "0000",
    ]
    assert answer["keys"] == [0x61, 0x010020AC, 0xFFC9, None]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
@pytest.mark.parametrize(
    ("told", "error"),
    [
        ([b"HTTP/1.1 200"], "not a screen"),
        ([HELLO[0], b"\x01\x02"], "asks for a password"),
        ([HELLO[0], b"\0" + struct.pack(">I", 4) + b"busy"], "busy"),
        ([*HELLO[:3], struct.pack(">HH16xI", 9000, 1, 0)], "too large"),
        ([*HELLO, update(rectangle(1, 0, 2, 1, 0))], "outside"),
        ([*HELLO, update(rectangle(0, 0, 1, 1, 7))], "nobody asked for"),
        ([*HELLO, b"\x09"], "nobody understands"),
        ([*HELLO[:3], struct.pack(">HH16xI", 2, 1, 1 << 30)], "too much"),
    ],
)
def test_the_viewer_ends_where_a_screen_says_something_else(told: list[bytes], error: str) -> None:
    assert error in viewed(*told)["error"]


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
