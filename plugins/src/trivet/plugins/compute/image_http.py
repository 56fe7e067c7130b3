"""Images from http(s) addresses, streamed to a file.

A cut download is taken up where it broke, if the server can say that the bytes are still the
same, else begun anew; what fails for good leaves nothing behind. A URL comes from a user and
is fetched by a server, so by default nothing is read from this machine itself or from
link-local addresses (where clouds keep their secrets): the address that the connection really
has is what counts, whatever names and redirects led to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from pydantic import Field

from trivet.contracts.compute.image import ImageSourceSpec
from trivet.contracts.compute.image_source import ImageSource, Progress
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import INVALID, UNAVAILABLE, Refused, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import GIB, Model

if TYPE_CHECKING:
    import httpx

REDIRECTS = 5
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpSourceConfig(Model):
    """`forbidden` are networks from which nothing is read; through a `proxy` it is the proxy
    that must forbid. `stall_s` without a byte counts as cut; `tries` in all."""

    max_bytes: int = 1024 * GIB
    connect_s: float = 15.0
    stall_s: float = 30.0
    tries: int = Field(default=5, ge=1)
    pause_s: float = 1.0
    proxy: str | None = None
    forbidden: tuple[str, ...] = (
        *("127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::1/128", "::/128", "fe80::/10", "ff00::/8"),
    )


@dataclass
class _Download:
    """How far a download is, and by what the server tells that the bytes are the same."""

    path: Path
    done_bytes: int = 0
    validator: str | None = None


class _Cut(Exception):
    """The transfer broke, and may be tried again."""


class HttpSource:
    """Downloads images."""

    name: ClassVar[str] = "http"
    Config: ClassVar[type[Model]] = HttpSourceConfig

    def __init__(self, context: DriverContext, config: HttpSourceConfig) -> None:
        self._config = config
        self._forbidden = tuple(ipaddress.ip_network(net) for net in config.forbidden)

    def __repr__(self) -> str:
        return "<HttpSource>"

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable."""
        return Probe(usable=True, reason="downloads over http and https", score=10)

    async def open(self) -> None:
        """Nothing to do: each download has connections of its own."""

    async def close(self) -> None:
        """Nothing to do."""

    def accepts(self, source: ImageSourceSpec) -> bool:
        """URLs."""
        return source.url is not None

    async def fetch(self, source: ImageSourceSpec, into: Path, progress: Progress) -> Path:
        """Download to a new file in `into`. `Refused` where the address is wrong or the image
        too large, `Retry` where it could not be had now; then nothing is left."""
        download = _Download(into / f"download-{uuid.uuid4().hex}")
        try:
            await self._persist(source.url or "", download, progress)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                _remove(download.path)
            raise
        return download.path

    async def _persist(self, url: str, download: _Download, progress: Progress) -> None:
        """Try until the download is complete; `Retry` when there are no tries left."""
        import httpx  # late: it is large, and seldom needed

        for left in reversed(range(self._config.tries)):
            try:
                await self._transfer(url, download, progress)
            except (_Cut, httpx.TransportError) as e:
                if not left:
                    raise Retry(UNAVAILABLE, f"{url}: {str(e) or type(e).__name__}") from e
                await asyncio.sleep(self._config.pause_s)
            else:
                return

    async def _transfer(self, url: str, download: _Download, progress: Progress) -> None:
        """One try: from where the last one broke, or from the start."""
        import httpx

        config = self._config
        timeout = httpx.Timeout(config.stall_s, connect=config.connect_s)
        # Compression is declined: bytes are counted, resumed and hashed as they are stored.
        headers = {"Accept-Encoding": "identity"}
        if download.done_bytes and download.validator:
            headers["Range"] = f"bytes={download.done_bytes}-"
            headers["If-Range"] = download.validator
        async with httpx.AsyncClient(
            timeout=timeout,
            follow_redirects=True,
            max_redirects=REDIRECTS,
            trust_env=False,
            proxy=config.proxy,
            event_hooks={"response": [self._check_peer]},
        ) as client:
            try:
                async with client.stream("GET", url, headers=headers) as response:
                    total = self._admit(response, download)
                    await self._store(response, download, total, progress)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as e:
                raise Refused(INVALID, f"{url}: {e}") from e

    async def _check_peer(self, response: httpx.Response) -> None:
        """Refuse an answer from a forbidden address, redirects included, before its body."""
        if self._config.proxy is not None:
            return
        stream = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer is None:
            raise Refused(INVALID, f"{response.url}: it is not known which address answered")
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in net for net in self._forbidden):
            raise Refused(
                INVALID,
                f"{response.url} leads to {address}, from which images are not taken",
                hint="the node's setting `forbidden` of the http image source says from where",
            )

    def _admit(self, response: httpx.Response, download: _Download) -> int | None:
        """Look at the answer's head; returns the size in all, if it is known."""
        status = response.status_code
        if status in TRANSIENT:
            raise _Cut(f"the server said {status}")
        if status not in (200, 206):
            raise Refused(INVALID, f"{response.url}: the server said {status}")
        if status == 200:
            download.done_bytes = 0
        elif not response.headers.get("Content-Range", "").startswith(
            f"bytes {download.done_bytes}-"
        ):
            download.validator = None  # it sent another part than asked for: begin anew
            raise _Cut("the server sent another part than was asked for")
        strong = response.headers.get("ETag", "")
        download.validator = (
            strong
            if strong and not strong.startswith("W/")
            else response.headers.get("Last-Modified")
        )
        length = response.headers.get("Content-Length", "")
        total = download.done_bytes + int(length) if length.isdigit() else None
        self._bound(total or 0)
        return total

    async def _store(
        self, response: httpx.Response, download: _Download, total: int | None, progress: Progress
    ) -> None:
        """Write what comes; a body shorter than announced counts as cut."""
        with _opened(download) as file:
            async for chunk in response.aiter_raw():
                self._bound(download.done_bytes + len(chunk))
                await asyncio.to_thread(file.write, chunk)
                download.done_bytes += len(chunk)
                progress(download.done_bytes, total)
        if total is not None and download.done_bytes != total:
            raise _Cut(f"ended after {download.done_bytes} of {total} bytes")

    def _bound(self, size_bytes: int) -> None:
        if size_bytes > self._config.max_bytes:
            raise Refused(
                INVALID,
                f"the image is larger than {self._config.max_bytes} bytes",
                hint="the node's setting `max_bytes` of the http image source bounds it",
            )


def _opened(download: _Download) -> BinaryIO:
    """The file, cut to what is known to be good, at its end. Raises OSError."""
    file = download.path.open("ab")
    file.truncate(download.done_bytes)
    return file


def _remove(path: Path) -> None:
    path.unlink()


@hookimpl
def trivet_image_sources() -> list[type[ImageSource]]:
    """http and https."""
    return [HttpSource]
