"""The kernel's own words for a small change: a netlink batch of elements and marker rules.

`nft` reads every set of the namespace before it adds one element, which takes 30-60 ms beside
ten thousand; this takes under one. So a change that is no more than elements that come and go,
and marker chains (rules that carry a comment and do nothing), is said here; anything else is
nft's. Formats: linux/netfilter/nf_tables.h and libnftnl's user data.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.plugins.security.nftables_text import Chain, Difference, SetChange

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
BATCH_BEGIN, BATCH_END = 16, 17
NEWRULE, DELRULE, NEWSETELEM, DELSETELEM = 6, 8, 12, 14
NLM_REQUEST, NLM_ACK, NLM_CREATE, NLM_APPEND = 1, 4, 0x400, 0x800
FAMILIES = {"inet": 1, "bridge": 7}
NESTED = 0x8000
INTERVAL_END = 1
CONTINUE = 0xFFFFFFFF
MARKER_PREFIX = 'continue comment "'
ELEMENTS_A_MESSAGE = 500
ANSWER_S = 5.0
RECEIVE_BYTES = 1 << 18
BUFFER_BYTES = 1 << 22
ADDRESS_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16}


class NotSimple(Exception):
    """The change is not one that this module can say."""


def opened() -> socket.socket:
    """A socket for changes, in the namespace of the calling thread."""
    link = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    link.bind((0, 0))
    link.settimeout(ANSWER_S)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return link


def send(link: socket.socket, messages: list[bytes]) -> None:
    """Make the change of a `batch`, whole or not at all. Blocks for about a millisecond.

    Raises `Fatal(DRIVER_FAILED)` where the kernel refused.
    """
    try:
        link.send(b"".join(messages))
    except OSError as error:
        raise Fatal(DRIVER_FAILED, f"the kernel did not take the change: {error}") from error
    _await(link, len(messages) - 2)


def batch(change: Difference, table: str) -> list[bytes]:
    """The messages of the transaction, between its begin and its end.

    Raises `NotSimple` where it takes more than this module can say.
    """
    if not change.elements_and_chains_alone:
        raise NotSimple
    made: list[tuple[int, int, str, bytes]] = []
    for of_set in change.sets:
        made += _elements(of_set, table)
    for family, name, chain in change.chains:
        made += _chain(family, name, chain, table)
    frame = struct.pack("!BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    messages = [_message(BATCH_BEGIN, NLM_REQUEST, 0, frame)]
    for number, (type_, flags, family, body) in enumerate(made, start=1):
        head = struct.pack("!BBH", FAMILIES[family], 0, 0)
        full = NFNL_SUBSYS_NFTABLES << 8 | type_
        messages.append(_message(full, NLM_REQUEST | NLM_ACK | flags, number, head + body))
    return [*messages, _message(BATCH_END, NLM_REQUEST, len(made) + 1, frame)]


def _await(link: socket.socket, answers: int) -> None:
    """Read one answer a message; the first that is an error is told."""
    while answers > 0:
        try:
            data = link.recv(RECEIVE_BYTES)
        except OSError as error:
            raise Fatal(DRIVER_FAILED, f"the kernel did not answer: {error}") from error
        at = 0
        while at + 20 <= len(data):
            length, type_ = struct.unpack_from("=IH", data, at)
            if type_ == 2:
                (code,) = struct.unpack_from("=i", data, at + 16)
                if code:
                    reason = errno.errorcode.get(-code, str(-code))
                    detail = f"the kernel refused the change: {reason} {os.strerror(-code)}"
                    raise Fatal(DRIVER_FAILED, detail)
                answers -= 1
            at += (length + 3) & ~3


# --- elements -------------------------------------------------------------------------------


def _elements(change: SetChange, table: str) -> list[tuple[int, int, str, bytes]]:
    made = []
    for type_, flags, keys in (
        (DELSETELEM, 0, change.gone),
        (NEWSETELEM, NLM_CREATE, list(change.new)),
    ):
        if change.after.kind != "set" and keys:
            raise NotSimple
        for start in range(0, len(keys), ELEMENTS_A_MESSAGE):
            some = keys[start : start + ELEMENTS_A_MESSAGE]
            coded = b"".join(
                _nested(1, body)
                for key in some
                for body in _element(change.after.type_, key, interval=change.after.interval)
            )
            names = _text(1, table) + _text(2, change.name)
            made.append((type_, flags, change.family, names + _nested(3, coded)))
    return made


def _element(type_: str, key: str, *, interval: bool) -> Iterable[bytes]:
    """What an element is on the wire; a range of a plain set is two, its beginning and the
    first that is beyond it."""
    types, texts = type_.split(" . "), key.split(" . ")
    spans = [_span(t, text.strip()) for t, text in zip(types, texts, strict=True)]
    if len(types) > 1:
        low, high = (b"".join(_filled(span[i]) for span in spans) for i in (0, 1))
        end = _nested(10, _attribute(1, high)) if interval else b""
        yield _nested(1, _attribute(1, low)) + end
        return
    ((low, high),) = spans
    yield _nested(1, _attribute(1, low))
    if interval:
        beyond = int.from_bytes(high, "big") + 1
        if beyond < 1 << (8 * len(high)):
            value = beyond.to_bytes(len(high), "big")
            yield _nested(1, _attribute(1, value)) + _attribute(3, struct.pack("!I", INTERVAL_END))


def _span(type_: str, text: str) -> tuple[bytes, bytes]:
    """The first and the last value that a text of that type means."""
    if type_ == "inet_service":
        first, _, last = text.partition("-")
        return int(first).to_bytes(2, "big"), int(last or first).to_bytes(2, "big")
    if type_ not in ADDRESS_BYTES:
        raise NotSimple
    if "/" in text:
        whole = ip_network(text)
        return whole.network_address.packed, whole.broadcast_address.packed
    return ip_address(text).packed, ip_address(text).packed


def _filled(value: bytes) -> bytes:
    return value.ljust((len(value) + 3) & ~3, b"\0")


# --- marker chains --------------------------------------------------------------------------


def _chain(family: str, name: str, chain: Chain, table: str) -> list[tuple[int, int, str, bytes]]:
    """A chain of rules that do nothing but carry comments, made anew."""
    where = _text(1, table) + _text(2, name)
    made = [(DELRULE, 0, family, where)]
    for rule in chain.rules:
        if chain.hook or not (rule.startswith(MARKER_PREFIX) and rule.endswith('"')):
            raise NotSimple
        made.append((NEWRULE, NLM_CREATE | NLM_APPEND, family, where + _marker(rule)))
    return made


def _marker(rule: str) -> bytes:
    comment = rule.removeprefix(MARKER_PREFIX)[:-1].encode() + b"\0"
    verdict = _nested(2, _nested(2, _attribute(1, struct.pack("!I", CONTINUE))))
    immediate = _attribute(1, struct.pack("!I", 0)) + verdict
    expression = _nested(1, _text(1, "immediate") + _nested(2, immediate))
    return _nested(4, expression) + _attribute(7, bytes([0, len(comment)]) + comment)


# --- the wire -------------------------------------------------------------------------------


def _message(type_: int, flags: int, number: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), type_, flags, number, 0) + body


def _attribute(type_: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), type_) + _filled(value)


def _nested(type_: int, value: bytes) -> bytes:
    return _attribute(type_ | NESTED, value)


def _text(type_: int, value: str) -> bytes:
    return _attribute(type_, value.encode() + b"\0")
