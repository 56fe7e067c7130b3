"""A real guest is talked to: on its line, by its screen, through its agent, as a user does it."""

import struct
from typing import Any

import pytest

from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT as SCREENSHOT
from trivet.testing.lab.node import LabNode, until

pytestmark = pytest.mark.root

BOUND_S = 240.0


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
            with client.stream(CONSOLE, request(client, CONSOLE, kind="vnc")) as screen:
                assert next(iter(screen)) == b"RFB 003.008\n"
            picture = client.download(SCREENSHOT, request(client, SCREENSHOT))
        assert picture.startswith(b"\x89PNG")
        assert struct.unpack(">II", picture[16:24]) > (0, 0)
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
