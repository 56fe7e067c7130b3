"""Links of this network namespace over rtnetlink: the few requests that our drivers make.

It exists so that drivers speak of links as values (`Link`) and never meet netlink's errors:
what exists already and what is gone already are successes here, since every driver method may
be repeated, and everything else becomes a `Fatal(DRIVER_FAILED)` that says which request failed.
The socket belongs to the namespace in which `open` was called.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from trivet.contracts.errors import DRIVER_FAILED, Fatal

IFF_UP = 1
GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH)


@dataclass(frozen=True)
class Link:
    """A link as the kernel shows it; `options` are those of its kind (`vxlan_id`, ...), `queueing`
    is the name of its root queueing discipline."""

    index: int
    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    master: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    queueing: str = ""


@dataclass(frozen=True)
class FdbEntry:
    """A forwarding entry: `dst` is the tunnel address, for an entry of the link's own table
    (`own`); the bridge's entries for the link have none."""

    mac: str
    dst: str | None
    own: bool
    state: int


class Netlink:
    """A netlink socket, opened once."""

    def __init__(self) -> None:
        self._route: Any = None

    async def open(self) -> None:
        """Open the socket in the namespace of the calling thread."""
        self._route = AsyncIPRoute()
        await self._done(self._route.setup_endpoint(), "open a socket")

    async def close(self) -> None:
        """Close the socket."""
        if self._route is not None:
            self._route.close()
            self._route = None

    async def links(self, prefix: str) -> dict[str, Link]:
        """Every link whose name begins with `prefix`, by name."""
        found = await self._dump(self._route.get_links(), "list links")
        return {link.name: link for link in map(_link, found) if link.name.startswith(prefix)}

    async def add(self, name: str, kind: str, **options: object) -> None:
        """Make a link; one of that name that is there already is left as it is."""
        await self._done(
            self._route.link("add", ifname=name, kind=kind, **options),
            f"add {kind} {name}",
            fine=(errno.EEXIST,),
        )

    async def set(self, index: int, **attributes: object) -> None:
        """Change a link (`state`, `mtu`, `master`, `ifalias`, ...)."""
        await self._done(
            self._route.link("set", index=index, **attributes), f"set link {index} {attributes}"
        )

    async def set_options(self, name: str, kind: str, **options: object) -> None:
        """Change what is particular to the link's kind."""
        await self._done(
            self._route.link("set", ifname=name, kind=kind, **options), f"set {kind} {name}"
        )

    async def set_port(self, index: int, **flags: int) -> None:
        """Change a bridge port (`learning`, `unicast_flood`, ...)."""
        await self._done(self._route.brport("set", index=index, **flags), f"set port {index}")

    async def delete(self, index: int) -> None:
        """Delete a link; gone already is fine."""
        await self._done(self._route.link("del", index=index), f"delete link {index}", fine=GONE)

    async def fdb(self, index: int) -> tuple[FdbEntry, ...]:
        """The forwarding entries of a link, the bridge's and its own."""
        found = await self._dump(self._route.fdb("dump", ifindex=index), f"list fdb of {index}")
        return tuple(
            FdbEntry(m.get("lladdr"), m.get("dst"), bool(m.get("flags") & 2), m.get("state"))
            for m in found
            if m.get("ifindex") == index
        )

    async def change_fdb(self, command: str, index: int, mac: str, **entry: object) -> None:
        """`add`, `append`, `replace` or `del` a forwarding entry."""
        await self._done(
            self._route.fdb(command, ifindex=index, lladdr=mac, **entry),
            f"fdb {command} {mac} on {index}",
            fine=GONE if command == "del" else (errno.EEXIST,),
        )

    async def neighbours(self, index: int) -> dict[str, str]:
        """The permanent neighbours on a link: address to MAC."""
        found = await self._dump(self._route.get_neighbours(), f"list neighbours of {index}")
        return {
            m.get("dst"): m.get("lladdr")
            for m in found
            if m.get("ifindex") == index and m.get("state") == 128
        }

    async def change_neighbour(self, command: str, index: int, address: str, mac: str) -> None:
        """`replace` or `del` a permanent neighbour."""
        await self._done(
            self._route.neigh(command, dst=address, lladdr=mac, ifindex=index, state=128),
            f"neigh {command} {address} on {index}",
            fine=GONE,
        )

    async def _done(self, request: Awaitable[object], what: str, fine: Iterable[int] = ()) -> None:
        try:
            await request
        except NetlinkError as error:
            if error.code not in fine:
                raise Fatal(DRIVER_FAILED, f"{what}: {error}") from error
        except OSError as error:
            raise Fatal(DRIVER_FAILED, f"{what}: {error}") from error

    async def _dump(self, request: Awaitable[Any], what: str) -> list[Any]:
        try:
            return [message async for message in await request]
        except (NetlinkError, OSError) as error:
            raise Fatal(DRIVER_FAILED, f"{what}: {error}") from error


def _link(message: Any) -> Link:
    info = message.get("linkinfo")
    data = info.get("data") if info is not None else None
    attributes = data.get("attrs", ()) if isinstance(data, dict) else ()
    return Link(
        index=message.get("index"),
        name=message.get("ifname"),
        kind=(info.get("kind") if info is not None else None) or "",
        alias=message.get("ifalias") or "",
        mac=message.get("address") or "",
        mtu=message.get("mtu") or 0,
        up=bool(message.get("flags") & IFF_UP),
        master=message.get("master"),
        options={_plain(name): value for name, value in attributes},
        queueing=message.get("qdisc") or "",
    )


def _plain(attribute: str) -> str:
    """`IFLA_VXLAN_ID` as one writes it: `vxlan_id`."""
    return attribute.removeprefix("IFLA_").lower()


def write_sysctl(key: str, value: str | int) -> bool:
    """Write `net/...` in the namespace of the calling thread; False where it has no such key."""
    try:
        (Path("/proc/sys") / key).write_text(str(value))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Fatal(DRIVER_FAILED, f"sysctl {key}={value}: {error}") from error
    return True
