"""Serving one replica: an nbdkit process whose only export name carries the epoch.

nbdkit's file plugin ignores export names, so its `exportname` filter stands before it and
refuses every other one: a client of an older epoch finds its name gone. nbdkit returns from its
start when its socket listens, and stays behind as a daemon; the socket's name says which
volume and epoch it serves, so the process table is all the record that is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.plugins.storage.node_process import Daemon, daemons, end, run

PROGRAM = "nbdkit"
THREADS = 16
SOCKET_NAME = re.compile(r"^(?P<volume>.+)\.e(?P<epoch>\d+)\.sock$")


def export_name(volume: ResourceId, epoch: int) -> str:
    """The one name under which a volume is served in an epoch."""
    return f"{volume}.e{epoch}"


@dataclass(frozen=True)
class ReplicaServer:
    """A running server of a replica."""

    volume: ResourceId
    epoch: int
    socket: Path
    daemon: Daemon

    def served(self) -> ServedReplica:
        """How it is reached."""
        return ServedReplica(
            volume=self.volume,
            epoch=self.epoch,
            export=export_name(self.volume, self.epoch),
            socket=str(self.socket),
        )


def replica_socket(folder: Path, volume: ResourceId, epoch: int) -> Path:
    """Where a replica's server listens."""
    return folder / f"{volume}.e{epoch}.sock"


def replica_servers(folder: Path) -> Iterator[ReplicaServer]:
    """All servers that run and listen in `folder`."""
    for daemon in daemons(PROGRAM, folder):
        for argument in daemon.argv:
            path = Path(argument)
            match = SOCKET_NAME.match(path.name)
            if match and path.parent == folder:
                volume = ResourceId(match["volume"])
                yield ReplicaServer(volume, int(match["epoch"]), path, daemon)


async def start_replica_server(folder: Path, volume: ResourceId, epoch: int, data: Path) -> None:
    """Start a server; returns once it listens."""
    socket = replica_socket(folder, volume, epoch)
    socket.unlink(missing_ok=True)
    await run(
        PROGRAM,
        "--unix",
        str(socket),
        "--threads",
        str(THREADS),
        "--filter=exportname",
        "file",
        f"file={data}",
        "exportname-strict=true",
        "exportname-list=explicit",
        f"exportname={export_name(volume, epoch)}",
        timeout_s=30.0,
    )


async def end_replica_server(server: ReplicaServer) -> None:
    """End a server: what it had acknowledged is in the file, and synced where it was asked."""
    await end(server.daemon)
    server.socket.unlink(missing_ok=True)


def forget_dead_sockets(folder: Path, volume: ResourceId) -> None:
    """Remove the sockets of a volume's servers that died."""
    alive = {server.socket for server in replica_servers(folder)}
    for path in folder.glob(f"{volume}.e*.sock"):
        if path not in alive:
            path.unlink(missing_ok=True)
