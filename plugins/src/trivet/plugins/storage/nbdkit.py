"""Serving one replica: an nbdkit process whose only export name carries the epoch.

The name also carries the session: what tells one start of a server from every other. A graph
whose server died tries to connect again by itself, and must not find a later one, which it would
write to as if nothing had been missed.

nbdkit's file plugin ignores export names, so its `exportname` filter stands before it and
refuses every other one: a client of an older epoch finds its name gone. nbdkit returns from its
start when its socket listens, and stays behind as a daemon. A server for other nodes is a second
one, over the same file: what one has written the other reads, for both go through the page cache.

It offers no structured replies. With them QEMU would ask every replica, one after the other,
which parts are holes before each read of a guest, and a read would wait for a replica that hangs.
"""

from __future__ import annotations

import os
import socket as socket_module
from pathlib import Path

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.plugins.storage.node_process import Daemon, end
from trivet.plugins.storage.sockets import Socket, Sockets, socket_path

PROGRAM = "nbdkit"
THREADS = 16
SESSION_BYTES = 6
EXPORT_ARGUMENT = "exportname="
PORT_ATTEMPTS = 5
END_GRACE_S = 0.2
"""Asked to end, nbdkit waits for its clients to leave, for ever; one of an old epoch will not."""


def graph_export(volume: ResourceId, epoch: int) -> str:
    """The name under which an attached volume is shown in an epoch."""
    return f"{volume}.e{epoch}"


def new_export(volume: ResourceId, epoch: int) -> str:
    """A name for one start of a replica's server."""
    return f"{volume}.e{epoch}.{os.urandom(SESSION_BYTES).hex()}"


def export_of(daemon: Daemon) -> str:
    """The one name that a server knows."""
    names = [a.removeprefix(EXPORT_ARGUMENT) for a in daemon.argv if a.startswith(EXPORT_ARGUMENT)]
    return names[0]


def served(
    server: Socket, export: str, remote: Socket | None, address: str | None
) -> ServedReplica:
    """How a replica's server is reached; `remote` is the one that listens on `address`."""
    return ServedReplica(
        volume=server.volume,
        epoch=server.epoch,
        export=export,
        socket=str(server.path),
        host=address if remote else None,
        port=remote.port if remote else None,
    )


async def start_replica_server(
    servers: Sockets, volume: ResourceId, epoch: int, data: Path, export: str
) -> Socket:
    """Start a server for this node; returns once it listens."""
    socket = socket_path(servers.folder, volume, epoch)
    where = ("--unix", str(socket))
    return await servers.start(volume, epoch, *where, *_served_file(export, data))


async def start_remote_server(
    servers: Sockets, volume: ResourceId, epoch: int, data: Path, export: str, address: str
) -> Socket:
    """Start a server for other nodes; returns once it listens, on a port that was free."""
    return await _on_a_free_port(servers, volume, epoch, address, *_served_file(export, data))


async def _on_a_free_port(
    servers: Sockets, volume: ResourceId, epoch: int, address: str, *argv: str
) -> Socket:
    for _ in range(PORT_ATTEMPTS):
        port = _free_port(address)
        where = ("--ipaddr", address, "--port", str(port))
        try:
            return await servers.start(volume, epoch, *where, *argv, port=port)
        except Fatal as error:
            # Somebody may have taken the port since: another one is as good.
            socket_path(servers.folder, volume, epoch, port).unlink(missing_ok=True)
            failed = error
    raise Fatal(DRIVER_FAILED, f"no port on {address}: {failed.detail}") from failed


async def start_offer(
    servers: Sockets, name: ResourceId, data: Path, export: str, address: str
) -> Socket:
    """Start a server of a file that never changes, for one client; it ends with that."""
    once = ("--readonly", "--filter=exitlast")
    return await _on_a_free_port(servers, name, 0, address, *once, *_served_file(export, data))


def _free_port(address: str) -> int:
    family = socket_module.AF_INET6 if ":" in address else socket_module.AF_INET
    with socket_module.socket(family) as tried:
        tried.bind((address, 0))
        return int(tried.getsockname()[1])


def _served_file(export: str, data: Path) -> tuple[str, ...]:
    return (
        "--threads",
        str(THREADS),
        "--no-sr",
        "--filter=exportname",
        "file",
        f"file={data}",
        "exportname-strict=true",
        "exportname-list=explicit",
        f"{EXPORT_ARGUMENT}{export}",
    )


async def end_replica_server(servers: Sockets, server: Socket) -> None:
    """End a server: what it had acknowledged is in the file, and synced where it was asked, so
    that it may be killed in the middle of a write, which ends before the process does."""
    if server.daemon is not None:
        await end(server.daemon, grace_s=END_GRACE_S)
    servers.forget(server)
