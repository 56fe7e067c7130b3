"""The firewall with ten thousand rules: to put them in force, to change one, and what they cost
the packets.

Two guests (network namespaces) talk over a bridge that the real driver protects. `full_10k_s`
replaces everything; `change_one_ms` is the driver's whole `apply` when one rule of the ten
thousand changes, and `kernel_ms` the part of it that the kernel takes. The ratios are of bulk
TCP and of connections a second, with ten thousand rules over the same firewall with one,
measured in turn; `open_ratio` is with ten thousand over a bridge without any firewall.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Results, median, ms, percentile, say
from trivet.contracts.driver import DriverContext
from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Protocol, Rule
from trivet.plugins.security import nftables_netlink
from trivet.plugins.security.nftables_backend import NftablesConfig, NftablesFirewall

COUNT = 10_000
CHANGES = 20
ROUNDS = 5
SECONDS = 1.0
MACS = ("52:54:00:00:00:0a", "52:54:00:00:00:0b")
ADDRESSES = ("10.0.0.10", "10.0.0.11")
SERVER = """
import socket, threading
def eat(c):
    try:
        while c.recv(1 << 20): pass
    except ConnectionResetError: pass
    c.close()
s = socket.create_server(("10.0.0.11", 5201), backlog=512)
print("up", flush=True)
while True:
    threading.Thread(target=eat, args=(s.accept()[0],), daemon=True).start()
"""
BULK = """
import socket, sys, time
c = socket.create_connection(("10.0.0.11", 5201)); data = bytes(1 << 20); n = 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: c.sendall(data); n += 1
print(n / float(sys.argv[1]))
"""
CONNECTS = """
import socket, struct, sys, time
n, end = 0, time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    c = socket.create_connection(("10.0.0.11", 5201))
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    c.close(); n += 1
print(n / float(sys.argv[1]))
"""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def _ground() -> Iterator[tuple[str, tuple[str, str]]]:
    """A bridge in a namespace, and two guests in theirs."""
    stem = f"tvbf{os.getpid()}"
    bridge, guests = f"{stem}n", (f"{stem}a", f"{stem}b")
    try:
        for name in (bridge, *guests):
            _run("ip", "netns", "add", name)
        quiet = "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 > $f; done"
        _run("ip", "netns", "exec", bridge, "sh", "-c", quiet)
        _run("ip", "-n", bridge, "link", "add", "tvbr100", "type", "bridge",
             "nf_call_iptables", "1", "nf_call_ip6tables", "1")  # fmt: skip
        _run("ip", "-n", bridge, "link", "set", "tvbr100", "up")
        for number, guest in enumerate(guests):
            inside = ("ip", "-n", guest)
            _run("ip", "-n", bridge, "link", "add", f"tvp{number}", "type", "veth",
                 "peer", "name", "eth0", "netns", guest)  # fmt: skip
            _run("ip", "-n", bridge, "link", "set", f"tvp{number}", "master", "tvbr100", "up")
            _run(*inside, "link", "set", "eth0", "address", MACS[number])
            _run(*inside, "addr", "add", f"{ADDRESSES[number]}/24", "dev", "eth0")
            _run(*inside, "link", "set", "eth0", "up")
        yield bridge, guests
    finally:
        for name in (bridge, *guests):
            subprocess.run(("ip", "netns", "del", name), capture_output=True, check=False)


def _rules(count: int) -> list[Rule]:
    """Half of them networks, half pairs of a network and a port; none but the last one, which
    has the lowest priority, speaks of the guests."""
    made = [Rule(remote=f"11.{n // 200}.{n % 200}.0/24") for n in range(count // 2)]
    made += [
        Rule(
            protocol=Protocol.TCP,
            ports=(str(1000 + n % 6000),),
            remote=f"12.{n // 200}.{n % 200}.7",
        )
        for n in range(count - len(made) - 1)
    ]
    return [*made, Rule(protocol=Protocol.TCP, ports=("5201",), priority=2000)]


def _ruleset(rules: Sequence[Rule], generation: int) -> Ruleset:
    group = GroupRules(
        id=ResourceId("g"), project="p", name="g", generation=generation, rules=tuple(rules)
    )
    ports = tuple(
        Binding(
            port=ResourceId(f"port-{n}"), project="p", generation=1, device=f"tvp{n}",
            mac=MACS[n], addresses=(ADDRESSES[n],), vni=100, security_groups=("g",),
        )
        for n in range(2)
    )  # fmt: skip
    return Ruleset(ports=ports, groups=(group,))


class _KernelTime:
    """Adds up what the driver's netlink batches take, while it is in place."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._send = nftables_netlink.send
        nftables_netlink.send = self._timed

    def _timed(self, link: object, messages: list[bytes]) -> None:
        begun = time.perf_counter()
        self._send(link, messages)  # type: ignore[arg-type]
        self.seconds.append(time.perf_counter() - begun)


async def _times(driver: NftablesFirewall, count: int) -> dict[str, list[float]]:
    rules = _rules(count)
    found: dict[str, list[float]] = {"full": [], "change": []}
    for generation in range(3):
        driver.forget()
        begun = time.perf_counter()
        await driver.apply(_ruleset(rules, generation))
        found["full"].append(time.perf_counter() - begun)
    kernel = _KernelTime()
    for n in range(CHANGES):
        rules[n] = Rule(remote=f"13.0.{n}.0/24")
        ruleset = _ruleset(rules, 10 + n)
        begun = time.perf_counter()
        await driver.apply(ruleset)
        found["change"].append(time.perf_counter() - begun)
    found["kernel"] = kernel.seconds
    return found


async def _rate(guest: str, client: str) -> float:
    command = ("ip", "netns", "exec", guest, sys.executable, "-c", client, str(SECONDS))
    done = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await done.communicate()
    return float(output)


async def _traffic(
    driver: NftablesFirewall, guests: tuple[str, str], count: int
) -> dict[str, list[float]]:
    """Bulk and connections a second, in turn with many rules, with one, and without any."""
    found: dict[str, list[float]] = {}
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", guests[1], sys.executable, "-c", SERVER,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        await server.stdout.readline()
        many, one = _rules(count), _rules(1)
        for round_ in range(ROUNDS):
            for name, rules in (("many", many), ("one", one), ("open", None)):
                if rules is None:
                    await driver.clear()
                else:
                    await driver.apply(_ruleset(rules, 100 + round_))
                for kind, client in (("bulk", BULK), ("connects", CONNECTS)):
                    found.setdefault(f"{kind}_{name}", []).append(await _rate(guests[0], client))
    finally:
        server.terminate()
        await server.wait()
    return found


async def measure(count: int) -> Results:
    """The figures of one run; needs root."""
    with _ground() as (bridge, guests), tempfile.TemporaryDirectory() as folder:
        context = DriverContext("bench", Path(folder), Path(folder))
        driver = NftablesFirewall(context, NftablesConfig(netns=bridge))
        await driver.open()
        try:
            say("the bridge stands; rules are put in force")
            times = await _times(driver, count)
            say("traffic, in turn with many rules, one, and none")
            traffic = await _traffic(driver, guests, count)
        finally:
            await driver.close()

    def ratio(kind: str, over: str) -> float:
        pairs = zip(traffic[f"{kind}_many"], traffic[f"{kind}_{over}"], strict=True)
        return median([a / b for a, b in pairs])

    figures = {
        "full_10k_s": median(times["full"]),
        "change_one_ms": ms(median(times["change"])),
        "change_one_p99_ms": ms(percentile(times["change"], 99)),
        "kernel_ms": ms(median(times["kernel"])) if times["kernel"] else float("nan"),
        "set_10k_ratio": ratio("bulk", "one"),
        "set_10k_connects_ratio": ratio("connects", "one"),
        "open_ratio": ratio("bulk", "open"),
        "open_connects_ratio": ratio("connects", "open"),
    }
    raw = {key: [round(v, 4) for v in values] for key, values in (times | traffic).items()}
    return Results(figures, {"rules": count, **raw})


def run(arguments: Sequence[str]) -> Results:
    """The benchmark."""
    parser = argparse.ArgumentParser(prog="trivet bench firewall", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    return asyncio.run(measure(parser.parse_args(arguments).count))
