"""Consoles: a guest's serial line and its screen, as byte streams; and its screen as a picture.

The serial console is the hypervisor's own business (`Hypervisor.console_path`); a screen is an
ability that a driver may have beside it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol, runtime_checkable

from pydantic import Field, StringConstraints

from trivet.contracts.endpoint import Ref
from trivet.contracts.model import NAME_PATTERN, Model, ResourceId
from trivet.contracts.stream import SECRET_HEX

SCREENSHOT_BYTES = 32 * 1024 * 1024
"""A picture of a screen at most (PNG)."""

TicketText = Annotated[
    str,
    StringConstraints(pattern=f"{NAME_PATTERN.removesuffix('$')}[.][0-9a-f]{{{SECRET_HEX}}}$"),
]
"""`<node>.<secret>`: what somebody without a token joins a console with, once."""


class ConsoleKind(StrEnum):
    """Which console: the serial line (bytes as they come), or the screen (RFB, as VNC speaks)."""

    SERIAL = "serial"
    VNC = "vnc"


class ConsoleRequest(Ref):
    """Whose console, and which."""

    kind: ConsoleKind = ConsoleKind.SERIAL


class ConsoleTicket(Model):
    """`path` is where a WebSocket joins the console without a token: once, in `expires_s`."""

    ticket: TicketText
    path: str
    expires_s: float = Field(ge=0)


@runtime_checkable
class Screens(Protocol):
    """Optional, for hypervisors whose guests have a screen."""

    async def screen_path(self, id_: ResourceId) -> str:
        """The unix socket at which a running domain's screen speaks RFB without a password; each
        connection is a viewer of its own. `Refused(CONFLICT)` where it does not run."""
        ...

    async def screenshot(self, id_: ResourceId) -> bytes:
        """What a running domain's screen shows, as PNG. `Refused(CONFLICT)` where it does not
        run."""
        ...
