"""Alarms to syslog (RFC 5424): over TCP to a server, or to this machine's own socket.

Not over UDP to a server: what is lost there is lost without a word, and alarms are told at least
once. TCP uses octet counting (RFC 6587). The structured data carries the notice's key, by which
one that comes twice is known; the message is the cause and the remedy.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from trivet.contracts.alarm import AlarmState, Severity
from trivet.contracts.alarm_sink import AlarmNotice, AlarmSink
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model

FACILITY_DAEMON = 3
LEVELS = {Severity.CRITICAL: 2, Severity.WARNING: 4, Severity.INFO: 6}
LEVEL_CLEARED = 5
ENTERPRISE = "trivet@32473"
"""The number that is reserved for examples: we have none of our own."""
TIMEOUT_S = 10.0


class SyslogConfig(Model):
    """`server` is `host:port` over TCP; without it, this machine's `socket`."""

    server: str | None = Field(default=None, pattern=r"^[!-~]+:[0-9]{1,5}$")
    socket: Path = Path("/dev/log")


def message(notice: AlarmNotice, host: str) -> bytes:
    """The notice as an RFC 5424 message."""
    cleared = notice.state is AlarmState.CLEARED
    priority = FACILITY_DAEMON * 8 + (LEVEL_CLEARED if cleared else LEVELS[notice.severity])
    at = (notice.cleared_at if cleared else None) or notice.raised_at
    fields = {
        "key": notice.key,
        "alarm": notice.name,
        "rule": notice.rule,
        "state": notice.state.value,
        "subject": notice.subject.id or notice.subject.kind,
    }
    data = " ".join(f'{name}="{_escaped(value)}"' for name, value in fields.items())
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = f"<{priority}>1 {stamp} {host or '-'} trivet {os.getpid()} alarm [{ENTERPRISE} {data}]"
    text = f"{notice.state.value}: {notice.cause}. What to do: {notice.remedy}"
    return f"{head} {' '.join(text.split())}".encode()


def _escaped(value: str) -> str:
    return "".join("\\" + c if c in '"\\]' else c for c in value)


class Syslog:
    """Writes notices to syslog."""

    name: ClassVar[str] = "syslog"
    Config: ClassVar[type[Model]] = SyslogConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: SyslogConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere; it is used where settings name it."""
        return Probe(usable=True, reason="a server over TCP, or this machine's /dev/log")

    async def open(self) -> None:
        """Connections are made when there is something to tell."""

    async def close(self) -> None:
        """Nothing is kept open."""

    async def tell(self, notice: AlarmNotice) -> None:
        """Send the notice; taken is what the server's kernel acknowledged."""
        text = message(notice, socket.gethostname())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._config.server is None:
                    await asyncio.to_thread(self._to_socket, text)
                else:
                    await self._to_server(self._config.server, text)
        except (OSError, TimeoutError) as error:
            where = self._config.server or self._config.socket
            detail = f"syslog: {where}: {error or 'no answer in time'}"
            raise Retry(UNAVAILABLE, detail) from error

    async def _to_server(self, server: str, text: bytes) -> None:
        host, _, port = server.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(str(len(text)).encode() + b" " + text)
            await writer.drain()
            # Our end first, then its: when it closes without an error it has read everything.
            writer.write_eof()
            await reader.read()
        finally:
            writer.close()

    def _to_socket(self, text: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(TIMEOUT_S)
            link.connect(str(self._config.socket))
            link.send(text)


@hookimpl
def trivet_alarm_sinks() -> list[type[AlarmSink]]:
    """Syslog."""
    return [Syslog]
