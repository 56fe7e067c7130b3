"""The pages of the gateway: the status page at `/`, a VM's serial line at `/console`, and its
screen at `/screen`.

They are a few static files, read once, under a policy that lets nothing else in. A page holds no
secret and no data: whoever opens it types a token, and it asks the API like any other client. Its
policy allows scripts, styles and calls of this origin alone, nothing inline,
and no frame around it, so that what a resource is called can't become code.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import Request
from fastapi.responses import Response

from trivet.contracts.errors import Refused
from trivet.contracts.gateway.codes import NO_ROUTE

TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "console.html": "text/html; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "join.js": "text/javascript; charset=utf-8",
    "rfb.js": "text/javascript; charset=utf-8",
    "screen.html": "text/html; charset=utf-8",
    "screen.js": "text/javascript; charset=utf-8",
    "terminal.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class StatusPage:
    """Serves the pages' files."""

    def __init__(self) -> None:
        folder = files("trivet.gateway").joinpath("page")
        self._files = {name: folder.joinpath(name).read_bytes() for name in TYPES}

    async def index(self, request: Request) -> Response:
        """The page itself."""
        return self._file("index.html")

    async def console(self, request: Request) -> Response:
        """The console's page."""
        return self._file("console.html")

    async def screen(self, request: Request) -> Response:
        """The screen's page."""
        return self._file("screen.html")

    async def part(self, request: Request) -> Response:
        """What the page is made of."""
        name = request.path_params["name"]
        if name not in self._files:
            raise Refused(NO_ROUTE, f"nothing is at {request.url.path[:200]!a}")
        return self._file(name)

    def _file(self, name: str) -> Response:
        return Response(self._files[name], media_type=TYPES[name], headers=HEADERS)
