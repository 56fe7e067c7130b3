"""Every alarm sink through its suite, against real receivers on this machine."""

import asyncio
import json
import re
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import Refused
from trivet.plugins.alarms.mail import Mail, MailConfig
from trivet.plugins.alarms.syslog import Syslog, SyslogConfig
from trivet.plugins.alarms.webhook import Webhook, WebhookConfig
from trivet.testing.fakes.alarm_sink import FakeAlarmSink
from trivet.testing.fakes.world import FaultConfig
from trivet.testing.suites.alarm_sink import AlarmSinkSuite, some_notice

HERE = "127.0.0.1"


def context(folder: Path) -> DriverContext:
    return DriverContext("n1", folder, folder)


class Server:
    """A TCP server that can be gone for a while and come back at the same port."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._answered, HERE, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def fail(self) -> None:
        assert self._server is not None
        self._server.close()
        self._server = None

    async def taken(self) -> list[str]:
        return self.keys

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.answer(reader, writer)
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class HttpServer(Server):
    status = "204 No Content"
    token: str | None = None

    async def answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(re.search(r"(?i)content-length: (\d+)", head)[1])
        body = json.loads(await reader.readexactly(length))
        assert re.search(rf"(?i)idempotency-key: {re.escape(body['key'])}\r", head)
        if self.token and f"Bearer {self.token}" not in head:
            self.status = "403 Forbidden"
        if self.status.startswith("2"):
            self.keys.append(body["key"])
        writer.write(
            f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()


def key_of(message: bytes) -> str:
    assert re.match(rb"<\d+>1 \d{4}-\d\d-\d\dT[\d:.]+Z \S+ trivet \d+ alarm \[", message), message
    assert b"\n" not in message
    return re.search(rb'key="([^"]+)"', message)[1].decode()


class SyslogServer(Server):
    async def answer(self, reader, writer):
        length = int((await reader.readuntil(b" ")).decode())
        self.keys.append(key_of(await reader.readexactly(length)))
        assert await reader.read() == b""


class SmtpServer(Server):
    refuses = ""

    async def answer(self, reader, writer):
        def say(line):
            writer.write(line.encode() + b"\r\n")

        say("220 test")
        while line := (await reader.readline()).decode():
            word = line[:4].strip().upper()
            if word == "DATA":
                say("354 go on")
                mail = (await reader.readuntil(b"\r\n.\r\n")).decode()
                number, change = re.search(r"Message-ID: <([^.>]+)\.(\d+)@", mail).groups()
                self.keys.append(f"{number}/{change}")
                say("250 taken")
            elif word == "RCPT" and self.refuses:
                say(self.refuses)
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


class TestFake(AlarmSinkSuite):
    @pytest.fixture
    def sink(self, tmp_path):
        return FakeAlarmSink(context(tmp_path), FaultConfig())

    @pytest.fixture
    def receiver(self, sink):
        class Receiver:
            async def taken(self):
                return [notice.key for notice in sink.world.told]

            async def fail(self):
                sink.world.reachable = False

            async def mend(self):
                sink.world.reachable = True

        return Receiver()


async def served(server: Server) -> AsyncIterator[Server]:
    await server.mend()
    yield server
    if server._server is not None:
        await server.fail()


class TestWebhook(AlarmSinkSuite):
    @pytest.fixture
    async def receiver(self):
        async for server in served(HttpServer()):
            yield server

    @pytest.fixture
    async def sink(self, tmp_path, receiver):
        token = tmp_path / "token"
        token.write_text("s3cret\n")
        receiver.token = "s3cret"
        url = f"http://{HERE}:{receiver.port}/alarms"
        driver = Webhook(context(tmp_path), WebhookConfig(url=url, token_file=token))
        await driver.open()
        yield driver
        await driver.close()

    async def test_what_is_refused_is_not_for_later(self, sink, receiver):
        receiver.status = "400 Bad Request"
        with pytest.raises(Refused):
            await sink.tell(some_notice())


class TestSyslogServer(AlarmSinkSuite):
    @pytest.fixture
    async def receiver(self):
        async for server in served(SyslogServer()):
            yield server

    @pytest.fixture
    def sink(self, tmp_path, receiver):
        return Syslog(context(tmp_path), SyslogConfig(server=f"{HERE}:{receiver.port}"))


class TestSyslogSocket(AlarmSinkSuite):
    @pytest.fixture
    async def receiver(self):
        class Receiver:
            def __init__(self, path):
                self.path, self.link, self.keys = path, None, []

            async def mend(self):
                self.link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self.link.bind(str(self.path))
                self.link.setblocking(False)

            async def fail(self):
                self.link.close()
                self.path.unlink()

            async def taken(self):
                while True:
                    try:
                        self.keys.append(key_of(self.link.recv(65536)))
                    except BlockingIOError:
                        return self.keys

        with tempfile.TemporaryDirectory() as folder:
            made = Receiver(Path(folder) / "log")
            await made.mend()
            yield made
            made.link.close()

    @pytest.fixture
    def sink(self, tmp_path, receiver):
        return Syslog(context(tmp_path), SyslogConfig(socket=receiver.path))


class TestMail(AlarmSinkSuite):
    @pytest.fixture
    async def receiver(self):
        async for server in served(SmtpServer()):
            yield server

    @pytest.fixture
    def sink(self, tmp_path, receiver):
        config = MailConfig(
            host=HERE,
            port=receiver.port,
            security="none",
            sender="trivet@example.org",
            recipients=("ops@example.org",),
        )
        return Mail(context(tmp_path), config)

    async def test_an_address_that_is_refused_is_not_for_later(self, sink, receiver):
        receiver.refuses = "550 no such user"
        with pytest.raises(Refused):
            await sink.tell(some_notice())
