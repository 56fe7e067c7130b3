"""Images come from the import folder and from the web, and from nowhere else."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from trivet.contracts.compute.image import ImageSourceSpec
from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import NOT_FOUND, Refused, Retry
from trivet.plugins.compute.image_file import FileSource, FileSourceConfig
from trivet.plugins.compute.image_http import HttpSource, HttpSourceConfig

BODY = bytes(range(256)) * 8192
Answer = Callable[[dict[str, str]], tuple[bytes, bytes]]
"""What the web server answers to a request's headers: its head, and its body."""


def context(folder: Path) -> DriverContext:
    return DriverContext(node="n1", state_dir=folder, run_dir=folder)


def nothing(done: int, total: int | None) -> None:
    """Progress is not looked at."""


class TestFile:
    def source(self, folder: Path) -> FileSource:
        (folder / "import").mkdir()
        return FileSource(context(folder), FileSourceConfig(import_dir=folder / "import"))

    async def test_a_file_is_given_as_it_is(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        file = tmp_path / "import/a.raw"
        file.write_bytes(b"12345")
        told: list[tuple[int, int | None]] = []
        spec = ImageSourceSpec(file="a.raw")
        assert source.accepts(spec)
        found = await source.fetch(spec, tmp_path, lambda done, total: told.append((done, total)))
        assert (found, told) == (file, [(5, 5)])

    @pytest.mark.parametrize("name", ["link", "folder", "pipe", "missing", "loop"])
    async def test_nothing_else_is_given(self, tmp_path: Path, name: str) -> None:
        source = self.source(tmp_path)
        folder = tmp_path / "import"
        (tmp_path / "secret").write_text("secret")
        (folder / "link").symlink_to(tmp_path / "secret")
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        with pytest.raises(Refused) as refused:
            await source.fetch(ImageSourceSpec(file=name), tmp_path, nothing)
        assert (refused.value.code is NOT_FOUND) is (name in ("missing", "loop"))

    async def test_what_is_there_for_one_import_goes_after_it(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        for name in ("kept.raw", "once-1f-a.raw"):
            (tmp_path / "import" / name).write_bytes(b"1")
            for _ in range(2):
                await source.forget(ImageSourceSpec(file=name))
        assert [p.name for p in (tmp_path / "import").iterdir()] == ["kept.raw"]

    async def test_a_link_within_the_folder_is_fine(self, tmp_path: Path) -> None:
        source = self.source(tmp_path)
        (tmp_path / "import/a-1.raw").write_bytes(b"1")
        (tmp_path / "import/latest").symlink_to("a-1.raw")
        found = await source.fetch(ImageSourceSpec(file="latest"), tmp_path, nothing)
        assert found.name == "a-1.raw"


@asynccontextmanager
async def web(answer: Answer) -> AsyncIterator[str]:
    """A web server that closes each connection after one answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        pairs = (line.partition(": ") for line in lines[1:] if line)
        head, body = answer({name.lower(): value for name, _, value in pairs})
        writer.write(head + b"connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.raw"


def ok(body: bytes = BODY, length: int | None = None, more: bytes = b"") -> tuple[bytes, bytes]:
    size = len(body) if length is None else length
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % size + more, body


class TestHttp:
    def source(self, folder: Path, **changes: object) -> HttpSource:
        config = HttpSourceConfig(forbidden=(), pause_s=0, stall_s=5)
        return HttpSource(context(folder), config.model_copy(update=changes))

    async def fetch(self, source: HttpSource, url: str, into: Path) -> bytes:
        os.makedirs(into, exist_ok=True)
        path = await source.fetch(ImageSourceSpec(url=url), into, nothing)
        return path.read_bytes()

    async def test_a_download(self, tmp_path: Path) -> None:
        async with web(lambda _: ok()) as url:
            assert await self.fetch(self.source(tmp_path), url, tmp_path / "into") == BODY

    @pytest.mark.parametrize("etag", [b'etag: "v1"\r\n', b"", b'etag: W/"v1"\r\n'])
    async def test_a_cut_download_is_completed(self, tmp_path: Path, etag: bytes) -> None:
        asked: list[str | None] = []

        def answer(headers: dict[str, str]) -> tuple[bytes, bytes]:
            asked.append(headers.get("range"))
            if len(asked) == 1:
                return ok(BODY[:1_000_000], len(BODY), etag)
            if asked[-1] is None:
                return ok(more=etag)
            assert headers["if-range"] == '"v1"'
            start = int(asked[-1].removeprefix("bytes=").rstrip("-"))
            head = b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\n" % (len(BODY) - start)
            span = b"content-range: bytes %d-%d/%d\r\n" % (start, len(BODY) - 1, len(BODY))
            return head + span + etag, BODY[start:]

        async with web(answer) as url:
            assert await self.fetch(self.source(tmp_path), url, tmp_path / "into") == BODY
        assert len(asked) == 2
        assert (asked[1] is not None) is (b'"v1"' in etag and b"W/" not in etag)

    async def test_a_server_that_lost_the_range_begins_anew(self, tmp_path: Path) -> None:
        asked: list[str | None] = []

        def answer(headers: dict[str, str]) -> tuple[bytes, bytes]:
            asked.append(headers.get("range"))
            first = len(asked) == 1
            return ok(BODY[:5], len(BODY), b'etag: "a"\r\n') if first else ok(b"other")

        async with web(answer) as url:
            assert await self.fetch(self.source(tmp_path), url, tmp_path / "into") == b"other"

    @pytest.mark.parametrize(
        ("answered", "error"),
        [
            (ok(b"x", 1000), Retry),
            ((b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n", b""), Retry),
            ((b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n", b""), Refused),
            (ok(bytes(3_000_000)), Refused),
            ((b"HTTP/1.1 200 OK\r\n", bytes(3_000_000)), Refused),
            ((b"HTTP/1.1 302 Found\r\nlocation: file:///etc/shadow\r\n", b""), Refused),
        ],
    )
    async def test_what_fails_leaves_nothing(
        self, tmp_path: Path, answered: tuple[bytes, bytes], error: type[Exception]
    ) -> None:
        into = tmp_path / "into"
        source = self.source(tmp_path, max_bytes=2_500_000, tries=2)
        async with web(lambda _: answered) as url:
            with pytest.raises(error):
                await self.fetch(source, url, into)
        assert list(into.iterdir()) == []

    async def test_a_server_that_falls_silent_is_a_retry(self, tmp_path: Path) -> None:
        silent = asyncio.Event()

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf of it")
            await silent.wait()
            writer.close()

        into = tmp_path / "into"
        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Retry):
            await self.fetch(
                self.source(tmp_path, tries=2, stall_s=0.1), f"http://127.0.0.1:{port}/", into
            )
        assert list(into.iterdir()) == []
        silent.set()
        server.close()
        await server.wait_closed()

    async def test_a_server_that_is_not_there_is_a_retry(self, tmp_path: Path) -> None:
        async with web(lambda _: ok()) as url:
            pass
        with pytest.raises(Retry):
            await self.fetch(self.source(tmp_path, tries=2), url, tmp_path / "into")

    async def test_this_machine_itself_is_forbidden_by_default(self, tmp_path: Path) -> None:
        source = HttpSource(context(tmp_path), HttpSourceConfig())
        async with web(lambda _: ok()) as url:
            for address in (url, url.replace("127.0.0.1", "localhost")):
                with pytest.raises(Refused, match="not taken"):
                    await self.fetch(source, address, tmp_path / "into")
        assert list((tmp_path / "into").iterdir()) == []

    async def test_a_redirect_does_not_get_around_it(self, tmp_path: Path) -> None:
        source = HttpSource(context(tmp_path), HttpSourceConfig(forbidden=("127.0.0.2/32",)))
        async with web(lambda _: ok()) as inner:
            other = inner.replace("127.0.0.1", "127.0.0.2").encode()
            found = b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: " + other + b"\r\n"
            async with web(lambda _: (found, b"")) as url:
                with pytest.raises((Refused, Retry)):
                    await self.fetch(source, url, tmp_path / "into")
