"""DHCP, router advertisements and DNS by dnsmasq: a process a network, where its gateway is.

Only guests that are named get an answer, always with the same lease, so there are no leases to
keep: what the guests are told is a function of what was asked here. The process is detached
and outlives the service; it is found again by its record (pid and start time). A change of
guests rewrites two files and sends SIGHUP (`dnsmasq_hosts` says what an address that goes to
another guest takes); a change of the network itself, and an exchange of addresses between guests,
start another process, which remembers nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.gateway_driver import DhcpNetwork
from trivet.plugins.network import namespaces
from trivet.plugins.network.command import run, succeeds
from trivet.plugins.network.dnsmasq_hosts import LEASE, Given, former, given_now, write_hosts
from trivet.plugins.network.link_watch import ProcessWatch
from trivet.plugins.network.netns_gateway import INNER
from trivet.plugins.network.records import read_record, write_record

STOP_WAIT_S = 3.0
ANSWER_WAIT_S = 3.0
RESOLV_FILES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


class DnsmasqConfig(Model):
    """`user`: who the server runs as, once it has its sockets."""

    user: str = "nobody"


class ServerRecord(Model):
    """What was asked, the process that serves it, and to whom it may have leased what."""

    network: DhcpNetwork
    pid: int
    started: int
    given: dict[str, tuple[str, ...]] = {}


class Dnsmasq:
    """dnsmasq processes of this node."""

    name: ClassVar[str] = "dnsmasq"
    Config: ClassVar[type[Model]] = DnsmasqConfig

    def __init__(self, context: DriverContext, config: DnsmasqConfig) -> None:
        self._run = context.run_dir
        self._user = config.user
        self._locks: dict[ResourceId, asyncio.Lock] = {}
        self._watch = ProcessWatch()

    @classmethod
    async def probe(cls) -> Probe:
        """Needs dnsmasq."""
        if await succeeds("dnsmasq", "--version"):
            return Probe(usable=True, reason="dnsmasq", score=10)
        return Probe(usable=False, reason="dnsmasq (package dnsmasq-base) is not installed")

    async def open(self) -> None:
        """Watch the servers that run already."""
        for path in sorted(self._run.glob("*/record.json")):
            record = read_record(path, ServerRecord)
            if record is not None and _start_time(record.pid) == record.started:
                self._watch.add(record.pid)

    async def close(self) -> None:
        """Watch no more; servers stay."""
        self._watch.close()

    async def changed(self) -> None:
        """Return when a server ended."""
        await self._watch.changed()

    async def ensure(self, network: DhcpNetwork) -> None:
        """Serve as asked; a change of hosts alone is a SIGHUP."""
        async with self._lock(network.network):
            if not namespaces.exists(network.namespace):
                raise Refused(NOT_FOUND, f"there is no network namespace {network.namespace}")
            folder = self._folder(network.network)
            folder.mkdir(parents=True, exist_ok=True)
            record = read_record(folder / "record.json", ServerRecord)
            if record is not None and await self._stays(record, network):
                others = former(record.given, network.hosts)
                if others is not None:
                    _change_hosts(folder, record, network, others)
                    return
            if record is not None:
                await _stop(record)
            write_hosts(folder, network, {})
            await self._start(folder, network)

    async def remove(self, network: ResourceId) -> None:
        """Stop serving that network."""
        async with self._lock(network):
            folder = self._folder(network)
            record = read_record(folder / "record.json", ServerRecord)
            if record is not None:
                await _stop(record)
            for path in folder.glob("*"):
                path.unlink()
            if folder.exists():
                folder.rmdir()

    async def served(self) -> tuple[ResourceId, ...]:
        """The networks whose server is there and answers a query."""
        found = []
        for path in sorted(self._run.glob("*/record.json")):
            record = read_record(path, ServerRecord)
            if record is not None and await _answers(record):
                found.append(record.network.network)
        return tuple(found)

    async def _stays(self, record: ServerRecord, network: DhcpNetwork) -> bool:
        """Whether the server that is there can go on: only guests changed, and it answers (it
        might hang, or sit in a namespace that was replaced by another of the same name)."""
        return _bare(record.network) == _bare(network) and await _answers(record)

    def _lock(self, network: ResourceId) -> asyncio.Lock:
        return self._locks.setdefault(network, asyncio.Lock())

    def _folder(self, network: ResourceId) -> Path:
        return self._run / network

    async def _start(self, folder: Path, network: DhcpNetwork) -> None:
        pid_file = folder / "pid"
        pid_file.unlink(missing_ok=True)
        upstream = network.upstream or node_resolvers(RESOLV_FILES)
        user = self._user if _searchable(folder) else "root"
        arguments = server_arguments(network, folder, upstream, user)
        # dnsmasq detaches itself once its sockets are open, so its exit tells whether they are.
        await run("ip", "netns", "exec", network.namespace, "dnsmasq", *arguments)
        pid = await _until(lambda: _read_pid(pid_file), STOP_WAIT_S)
        started = _start_time(pid) if pid else None
        if pid is None or started is None:
            raise Fatal(DRIVER_FAILED, f"the DHCP server of {network.network} ended at once")
        given = given_now({}, network.hosts)
        record = ServerRecord(network=network, pid=pid, started=started, given=given)
        write_record(folder / "record.json", record)
        self._watch.add(pid)


def server_arguments(
    network: DhcpNetwork, folder: Path, upstream: tuple[str, ...], user: str
) -> list[str]:
    """dnsmasq's command line: a pure function of what is asked."""
    arguments = [
        "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-interfaces",
        f"--interface={INNER}", "--except-interface=lo", "--leasefile-ro",
        f"--pid-file={folder / 'pid'}", f"--user={user}",
        f"--dhcp-hostsfile={folder / 'hosts'}", f"--addn-hosts={folder / 'names'}",
        f"--domain={network.domain}", f"--local=/{network.domain}/", "--expand-hosts",
        "--domain-needed", "--bogus-priv", "--dhcp-authoritative", "--no-ping",
        *(f"--server={address}" for address in upstream),
    ]  # fmt: skip
    for subnet in map(ip_network, network.subnets):
        own = [g for g in network.gateways if ip_address(g).version == subnet.version]
        if subnet.version == 4:
            first, mask = subnet.network_address, subnet.netmask
            arguments.append(f"--dhcp-range=set:v4,{first},static,{mask},{LEASE}")
            arguments.append(f"--dhcp-option=tag:v4,option:mtu,{network.mtu}")
            arguments += [f"--dhcp-option=tag:v4,option:router,{g}" for g in own]
            arguments += [f"--dhcp-option=tag:v4,option:dns-server,{g}" for g in own]
        else:
            place = f"{subnet.network_address},static,{subnet.prefixlen}"
            arguments += ["--enable-ra", f"--dhcp-range=set:v6,{place},{LEASE}"]
            arguments.append(f"--ra-param={INNER},mtu:{network.mtu},60,1800")
            arguments += [f"--dhcp-option=tag:v6,option6:dns-server,[{g}]" for g in own]
    return arguments


def node_resolvers(files: tuple[Path, ...]) -> tuple[str, ...]:
    """The node's own DNS servers, as far as a gateway can reach them (not on loopback)."""
    for path in files:
        if not path.exists():
            continue
        words = [line.split() for line in path.read_text().splitlines()]
        named = [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and "%" not in w[1]]
        usable = tuple(a for a in named if not ip_address(a).is_loopback)
        if usable:
            return usable
    return ()


def _change_hosts(folder: Path, record: ServerRecord, network: DhcpNetwork, others: Given) -> None:
    changed = record.network.hosts != network.hosts
    update = {"network": network, "given": given_now(record.given, network.hosts)}
    # On record before it can lease anything: who had an address must not be forgotten.
    write_record(folder / "record.json", record.model_copy(update=update))
    if changed:
        write_hosts(folder, network, others)
        os.kill(record.pid, signal.SIGHUP)


def _bare(network: DhcpNetwork) -> DhcpNetwork:
    """The network without what SIGHUP, or nothing, can change."""
    return network.model_copy(update={"hosts": (), "generation": 0})


def _searchable(folder: Path) -> bool:
    """Whether others than root get to the files in `folder`."""
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.resolve().parents))


def _read_pid(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def _start_time(pid: int) -> int | None:
    """When the process started, in ticks since boot; None where there is none (or a zombie).

    With the pid this names a process for ever: a recycled pid has another start time.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


async def _stop(record: ServerRecord) -> None:
    """End the process, and wait until it is gone: its sockets are wanted again."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if _start_time(record.pid) != record.started:
            return
        os.kill(record.pid, sign)
        await _until(lambda: _start_time(record.pid) != record.started or None, STOP_WAIT_S)


async def _until(look: Callable[[], int | None], limit_s: float) -> int | None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while True:
        seen = look()
        if seen is not None or loop.time() > deadline:
            return seen
        await asyncio.sleep(0.02)


async def _answers(record: ServerRecord) -> bool:
    if _start_time(record.pid) != record.started or not _in_namespace(record):
        return False
    gateway = record.network.gateways[0]
    try:
        return await namespaces.inside(record.network.namespace, lambda: _query(gateway))
    except Refused:
        return False


def _in_namespace(record: ServerRecord) -> bool:
    try:
        here = Path(f"/proc/{record.pid}/ns/net").stat()
        there = (namespaces.FOLDER / record.network.namespace).stat()
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _query(server: str) -> bool:
    """Whether a DNS server answers at all (for the name `gateway`, whatever it says)."""
    family = socket.AF_INET if ip_address(server).version == 4 else socket.AF_INET6
    head = struct.pack("!HHHHHH", os.getpid() & 0xFFFF, 0x0100, 1, 0, 0, 0)
    question = head + b"\x07gateway\x00" + struct.pack("!HH", 1, 1)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ANSWER_WAIT_S)
        try:
            sock.sendto(question, (server, 53))
            return sock.recv(512)[:2] == question[:2]
        except OSError:
            return False


@hookimpl
def trivet_dhcp_drivers() -> list[type[Dnsmasq]]:
    """Register the driver."""
    return [Dnsmasq]
