"""A real guest is talked to: on its line, by its screen, through its agent, as a user does it."""

import json
import shutil
import struct
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT as SCREENSHOT
from trivet.testing.lab.node import LabNode, until

pytestmark = pytest.mark.root

BOUND_S = 240.0


VIEWER = """
const { Rfb } = require(process.argv[1]);
let told = null;
const fresh = () => ({ send: [], size: null, painted: 0, lit: 0 });
told = fresh();
const viewer = new Rfb({
  send: (bytes) => told.send.push(Buffer.from(bytes).toString("hex")),
  size: (width, height) => { told.size = [width, height]; },
  picture: (x, y, width, height, rgba) => {
    told.painted += width * height;
    for (let i = 0; i < rgba.length; i += 4) told.lit += rgba[i] + rgba[i + 1] + rgba[i + 2] > 0;
  },
  copy: () => {}, bell: () => {},
});
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  viewer.feed(Uint8Array.from(Buffer.from(line, "hex")));
  console.log(JSON.stringify(told));
  told = fresh();
});
"""


def seen_by_the_page(screen: Any) -> tuple[list[int], int]:
    """The size of the screen and how many of its pixels are lit, by the page's own script, once
    it has all of it. Without node nobody looks."""
    script = str(files("trivet.gateway").joinpath("page/rfb.js"))
    argv = ["node", "-e", VIEWER, script]
    size, painted, lit = [0, 0], 0, 0
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        for data in screen:
            node.stdin.write(data.hex() + "\n")
            node.stdin.flush()
            told = json.loads(node.stdout.readline())
            for answer in told["send"]:
                assert screen.send(bytes.fromhex(answer))
            size, painted, lit = told["size"] or size, painted + told["painted"], lit + told["lit"]
            if painted and painted >= size[0] * size[1]:
                break
    return size, lit


def request(client: Client, endpoint: Any, **fields: Any) -> Any:
    return build_request(endpoint, "talks", fields, client.project)


def test_line_screen_and_agent(lab_node: LabNode) -> None:
    lab_node.create("talks")
    try:
        until("it has booted", lambda: lab_node.ready("talks"), BOUND_S)
        with lab_node.client() as client:
            with client.stream(CONSOLE, request(client, CONSOLE)) as line:
                assert line.send(b"echo $((6 * 7))-answers\n")
                shown = b""
                for data in line:
                    shown += data
                    if b"\n42-answers\r" in shown:
                        break
            if shutil.which("node") is not None:
                with client.stream(CONSOLE, request(client, CONSOLE, kind="vnc")) as screen:
                    page, lit = seen_by_the_page(screen)
                assert lit > 0, "the firmware has written something"
            with client.stream(CONSOLE, request(client, CONSOLE, kind="vnc")) as screen:
                assert next(iter(screen)) == b"RFB 003.008\n"
            picture = client.download(SCREENSHOT, request(client, SCREENSHOT))
        assert picture.startswith(b"\x89PNG")
        shown_size = struct.unpack(">II", picture[16:24])
        assert shown_size > (0, 0)
        if shutil.which("node") is not None:
            assert tuple(page) == shown_size
        until("its agent answers", lambda: _agent(lab_node).connected, BOUND_S)
        until(
            "it is called as its lease says", lambda: _agent(lab_node).hostname == "talks", BOUND_S
        )
    finally:
        lab_node.trivet("vm", "delete", "talks", "--wait")
    assert b"42-answers" in shown


def _agent(lab_node: LabNode) -> Any:
    vm = lab_node.vm("talks")
    assert vm is not None
    return vm.status.agent
