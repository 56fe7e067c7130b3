"""What a port's bounds let through, over what was asked for: bulk TCP between two guests
(network namespaces) on a bridge, under the driver's own bounds.

`qos_<direction>_<n>mb_ratio`: bytes that arrived over bytes that the bound allows in the time;
`qos_change_ms`: a change of the bounds of a port that has some.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import Results, median, ms, say
from trivet.contracts.network.port import PortQos, Rate
from trivet.plugins.network.netlink import Netlink
from trivet.plugins.network.port_rates import PortRates
from trivet.testing.suites.guests import scratch_namespace

MEGABYTES = (2, 20, 100)
SECONDS = 3.0
CHANGES = 10
TAP = "tvp0000000001"
SERVER = """
import socket
s = socket.create_server(("10.0.0.11", 5201))
print("up", flush=True)
while True:
    c, n = s.accept()[0], 0
    try:
        while data := c.recv(1 << 20): n += len(data)
    except ConnectionResetError: pass
    print(n, flush=True)
"""
BULK = """
import socket, sys, time
c = socket.create_connection(("10.0.0.11", 5201)); data = bytes(1 << 16)
c.settimeout(1); end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: c.send(data)
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
"""


def _shell(script: str) -> None:
    subprocess.run(("sh", "-ec", script), check=True, capture_output=True)


@contextmanager
def _guests(stem: str) -> Iterator[tuple[str, str]]:
    """Two guests on a bridge of this thread's namespace; the first one's port is the tap."""
    names = (f"{stem}-a", f"{stem}-b")
    _shell("ip link add tvbr100 type bridge; ip link set tvbr100 up")
    try:
        for number, name in enumerate(names):
            tap = TAP if number == 0 else "tvp0000000002"
            _shell(
                f"ip netns add {name}; ip link add {tap} type veth peer name eth0 netns {name};"
                f"ip link set {tap} master tvbr100 up; ip -n {name} link set eth0 up;"
                f"ip -n {name} address add 10.0.0.1{number}/24 dev eth0"
            )
        yield names
    finally:
        for name in names:
            subprocess.run(("ip", "netns", "delete", name), capture_output=True, check=False)


def _bytes(sender: str, receiver: str, address: str) -> int:
    """How much of bulk TCP arrives in the time."""
    server = subprocess.Popen(
        ("ip", "netns", "exec", receiver, sys.executable, "-c",
         SERVER.replace("10.0.0.11", address)),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        server.stdout.readline()
        code = BULK.replace("10.0.0.11", address)
        command = ("ip", "netns", "exec", sender, sys.executable, "-c", code, str(SECONDS))
        subprocess.run(command, check=True)
        return int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


async def _measure(first: str, second: str) -> Results:
    netlink = Netlink()
    await netlink.open()
    rates = PortRates(netlink, "tv")
    figures: dict[str, float] = {}
    for megabytes in MEGABYTES:
        rate = Rate(bytes_per_s=megabytes * 1_000_000)
        allowed = rate.bytes_per_s * SECONDS
        for direction in ("ingress", "egress"):
            await rates.apply(TAP, PortQos.model_validate({direction: rate}))
            sender, receiver = (second, first) if direction == "ingress" else (first, second)
            address = "10.0.0.10" if direction == "ingress" else "10.0.0.11"
            arrived = await asyncio.to_thread(_bytes, sender, receiver, address)
            figures[f"qos_{direction}_{megabytes}mb_ratio"] = round(arrived / allowed, 3)
            say(f"{direction} {megabytes} MB/s: {arrived / allowed:.3f}")
    took = []
    for number in range(CHANGES):
        rate = Rate(bytes_per_s=1_000_000 + number)
        began = time.perf_counter()
        await rates.apply(TAP, PortQos(ingress=rate, egress=rate))
        took.append(time.perf_counter() - began)
    figures["qos_change_ms"] = ms(median(took))
    await netlink.close()
    return Results(figures, {"seconds": SECONDS, "changes_s": took})


def run(arguments: list[str]) -> Results:
    """Measure; takes no arguments of its own."""
    with scratch_namespace(), _guests(f"tvbn{os.getpid()}") as (first, second):
        return asyncio.run(_measure(first, second))
