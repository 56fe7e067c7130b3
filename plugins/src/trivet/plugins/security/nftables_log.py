"""Reads the packets that rules with `log` tell, from the kernel's packet log (NFLOG).

The kernel's text log can't be read by a project's users, and is everybody's; this group of
packets is this instance's own. How many a rule tells is bounded in the kernel, and what is kept
here between two readings is bounded too; the oldest go first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from trivet.contracts.errors import DRIVER_FAILED, Fatal

log = logging.getLogger(__name__)

NETLINK_NETFILTER = 12
ULOG = 4
PACKET, CONFIG = 0, 1
MARK, INDEV, OUTDEV, PAYLOAD, PREFIX = 2, 4, 5, 9, 10
COMMAND, MODE, TIMEOUT, THRESHOLD = 1, 2, 4, 5
BIND, COPY_PACKET = 1, 2
COPIED_BYTES = 128
KEPT_PACKETS = 5000
RECEIVE_BYTES = 1 << 17
ANSWER_S = 5.0
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}


@dataclass(frozen=True)
class Seen:
    """A packet as it was told: the rule's prefix, the mark that carries the ports' slots, the
    links by index, and what its header says."""

    at: datetime
    prefix: str
    mark: int
    indev: int
    outdev: int
    protocol: str
    source: str
    destination: str
    source_port: int | None
    destination_port: int | None


def opened(group: int) -> socket.socket:
    """A socket that is told the packets of `group`, in the namespace of the calling thread.

    Raises `Fatal(DRIVER_FAILED)` where somebody else reads that group.
    """
    link = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    link.bind((0, 0))
    link.settimeout(ANSWER_S)
    copied = struct.pack("!IBB", COPIED_BYTES, COPY_PACKET, 0)
    for body in (
        _attribute(COMMAND, struct.pack("!B", BIND)),
        _attribute(MODE, copied),
        _attribute(THRESHOLD, struct.pack("!I", 1)),
        _attribute(TIMEOUT, struct.pack("!I", 10)),
    ):
        head = struct.pack("!BBH", 0, 0, group)
        size = 20 + len(body)
        link.send(struct.pack("=IHHII", size, ULOG << 8 | CONFIG, 5, 0, 0) + head + body)
        code = struct.unpack_from("=i", link.recv(RECEIVE_BYTES), 16)[0]
        if code:
            link.close()
            reason = errno.errorcode.get(-code, str(code))
            raise Fatal(DRIVER_FAILED, f"packet log group {group} can't be read: {reason}")
    link.setblocking(False)
    return link


class PacketLog:
    """The packets that were told and not yet taken."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._seen: deque[Seen] = deque(maxlen=KEPT_PACKETS)
        asyncio.get_running_loop().add_reader(link.fileno(), self.read)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._link.close()

    def take(self) -> list[Seen]:
        """What was told since the last time, oldest first."""
        self.read()
        seen, self._seen = list(self._seen), deque(maxlen=KEPT_PACKETS)
        return seen

    def read(self) -> None:
        """Take in what the kernel has for us."""
        while True:
            try:
                data = self._link.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.info("more packets were logged than could be read")
                continue
            now, at = datetime.now(UTC), 0
            while at + 20 <= len(data):
                length, type_ = struct.unpack_from("=IH", data, at)
                if type_ == ULOG << 8 | PACKET:
                    with contextlib.suppress(ValueError, struct.error, IndexError):
                        self._seen.append(_parsed(data[at + 20 : at + length], now))
                at += max((length + 3) & ~3, 16)


def _parsed(body: bytes, now: datetime) -> Seen:
    facts: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(body):
        size, type_ = struct.unpack_from("=HH", body, at)
        facts[type_ & 0x3FFF] = body[at + 4 : at + size]
        at += max((size + 3) & ~3, 4)
    protocol, source, destination, ports = _header(facts.get(PAYLOAD, b""))
    return Seen(
        at=now,
        prefix=facts.get(PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
        mark=int.from_bytes(facts.get(MARK, b""), "big"),
        indev=int.from_bytes(facts.get(INDEV, b""), "big"),
        outdev=int.from_bytes(facts.get(OUTDEV, b""), "big"),
        protocol=protocol,
        source=source,
        destination=destination,
        source_port=ports[0] if ports else None,
        destination_port=ports[1] if ports else None,
    )


def _header(packet: bytes) -> tuple[str, str, str, tuple[int, int] | None]:
    """Protocol, addresses and ports; raises `ValueError` where it is no IP packet."""
    if packet[:1] and packet[0] >> 4 == 4:
        number, start = packet[9], (packet[0] & 15) * 4
        source, destination = packet[12:16], packet[16:20]
    elif packet[:1] and packet[0] >> 4 == 6:
        number, start = packet[6], 40
        source, destination = packet[8:24], packet[24:40]
    else:
        raise ValueError("not an IP packet")
    name = PROTOCOLS.get(number, str(number))
    ports: tuple[int, int] | None = None
    if name in ("tcp", "udp"):
        low, high = struct.unpack_from("!HH", packet, start)
        ports = (low, high)
    return name, str(ip_address(source)), str(ip_address(destination)), ports


def _attribute(type_: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), type_) + value.ljust((len(value) + 3) & ~3, b"\0")
