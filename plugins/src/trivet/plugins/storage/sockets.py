"""What listens for volumes in a folder: `<volume>.e<epoch>.sock`, and the daemon behind each.

One that listens on TCP has a file named `<volume>.e<epoch>.p<port>.sock` instead of a socket.

The process table is gone through once, when the engine opens; from then on each daemon that is
started or ended is entered here, so that a look at one volume costs the same however many others
there are. Whether a daemon still lives is asked anew each time, by its pid and its whole command
line. A socket without its daemon is told as such: something died there.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import ResourceId
from trivet.plugins.storage.node_process import Daemon, daemon_of, daemons, lives, run

SOCKET_NAME = re.compile(r"^(?P<volume>.+)\.e(?P<epoch>\d+)(\.p(?P<port>\d+))?\.sock$")
START_TIMEOUT_S = 30.0
TOLD_S = 5.0
"""A daemon may write its pid a moment after the command that started it has returned."""
LOOK_S = 0.005


@dataclass(frozen=True)
class Socket:
    """A socket of a volume in an epoch; `daemon` None: what listened there is dead."""

    volume: ResourceId
    epoch: int
    path: Path
    daemon: Daemon | None
    port: int | None = None

    @property
    def monitor(self) -> Path:
        """The control socket of the daemon, where it has one."""
        return self.path.with_suffix(".qmp")

    @property
    def events(self) -> Path:
        """Where the daemon tells what happens, where it does."""
        return self.path.with_suffix(".evt")

    @property
    def record(self) -> Path:
        """What is kept of the daemon beside it, where something is."""
        return self.path.with_suffix(".record")


def socket_path(folder: Path, volume: ResourceId, epoch: int, port: int | None = None) -> Path:
    """Where a volume's daemon listens in an epoch, or the file that stands for its port."""
    where = "" if port is None else f".p{port}"
    return folder / f"{volume}.e{epoch}{where}.sock"


class Sockets:
    """The sockets of one program in one folder."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self.folder = folder
        self._known: dict[ResourceId, dict[Path, Socket]] = defaultdict(dict)

    def scan(self) -> None:
        """Find everything anew, in the process table and in the folder."""
        self._known.clear()
        for path in self.folder.glob("*.sock"):
            self._enter(path, None)
        for daemon in daemons(self._program, self.folder):
            for argument in daemon.argv:
                path = Path(argument.rpartition("=")[2])
                if path.parent == self.folder and SOCKET_NAME.match(path.name):
                    self._enter(path, daemon)

    def of(self, volume: ResourceId) -> list[Socket]:
        """The sockets of a volume, the oldest epoch first."""
        found = self._known.get(volume, {}).values()
        return sorted((_as_it_is(s) for s in found), key=lambda s: s.epoch)

    def behind(self, path: Path) -> Daemon | None:
        """The daemon of that socket, if it lives."""
        match = SOCKET_NAME.match(path.name)
        known = self._known.get(ResourceId(match["volume"]), {}) if match else {}
        return _as_it_is(known[path]).daemon if path in known else None

    def all(self) -> list[Socket]:
        """All sockets, by volume."""
        return [socket for volume in sorted(self._known) for socket in self.of(volume)]

    async def start(
        self, volume: ResourceId, epoch: int, *argv: str, port: int | None = None
    ) -> Socket:
        """Run the program, which leaves a daemon behind that listens on the volume's socket, or
        on that port."""
        path = socket_path(self.folder, volume, epoch, port)
        # What stands for a port must be on the daemon's command line, to be found there again.
        record = path if port is not None else path.with_suffix(".pid")
        path.unlink(missing_ok=True)
        record.unlink(missing_ok=True)
        try:
            await run(self._program, "--pidfile", str(record), *argv, timeout_s=START_TIMEOUT_S)
            return self._enter(path, _alive(self._program, await _told(record)))
        except BaseException:
            # Cut while it started: what there is of it must not stay unseen.
            self.scan()
            raise
        finally:
            if port is None:
                record.unlink(missing_ok=True)

    def forget(self, socket: Socket) -> None:
        """Remove the files of a socket whose daemon is no more."""
        for file in (socket.path, socket.monitor, socket.events, socket.record):
            file.unlink(missing_ok=True)
        known = self._known.get(socket.volume, {})
        known.pop(socket.path, None)
        if not known:
            self._known.pop(socket.volume, None)

    def _enter(self, path: Path, daemon: Daemon | None) -> Socket:
        match = SOCKET_NAME.match(path.name)
        assert match is not None, path
        volume = ResourceId(match["volume"])
        port = int(match["port"]) if match["port"] else None
        made = Socket(volume, int(match["epoch"]), path, daemon, port)
        self._known[volume][path] = made
        return made


def _as_it_is(socket: Socket) -> Socket:
    if socket.daemon is None or lives(socket.daemon):
        return socket
    return Socket(socket.volume, socket.epoch, socket.path, None, socket.port)


def _alive(program: str, pid: int) -> Daemon:
    daemon = daemon_of(pid)
    if daemon is None:
        raise Fatal(DRIVER_FAILED, f"{program} ended as soon as it had begun")
    return daemon


async def _told(record: Path) -> int:
    """The pid that a daemon writes into `record`."""
    for _ in range(int(TOLD_S / LOOK_S)):
        text = await asyncio.to_thread(lambda: record.read_text() if record.exists() else "")
        if text.endswith("\n"):
            return int(text)
        await asyncio.sleep(LOOK_S)
    raise Fatal(DRIVER_FAILED, f"no pid was written into {record}")
