"""What netlink tells: which messages concern us."""

import struct

from trivet.plugins.network.link_watch import (
    IFF_UP,
    RTM_DELLINK,
    RTM_NEWLINK,
    LinkWatch,
    RulesWatch,
    attributes,
    messages,
)


def attribute(kind: int, value: bytes) -> bytes:
    head = struct.pack("=HH", 4 + len(value), kind)
    return (head + value).ljust((4 + len(value) + 3) & ~3, b"\0")


def link(name: str, flags: int = IFF_UP, master: int = 7, family: int = 0) -> bytes:
    head = struct.pack("=BBHiII", family, 0, 1, 5, flags, 0)
    return head + attribute(3, name.encode() + b"\0") + attribute(10, struct.pack("=I", master))


def test_a_datagram_is_taken_apart() -> None:
    body = link("tvp1")
    whole = struct.pack("=IHHII", 16 + len(body), RTM_NEWLINK, 0, 1, 0) + body
    assert list(messages(whole + whole + b"\1")) == [(RTM_NEWLINK, body)] * 2
    assert dict(attributes(body[16:]))[3] == b"tvp1\0"
    assert list(attributes(struct.pack("=HH", 1, 1))) == []
    assert list(messages(b"\0" * 16)) == []


def test_links_of_ours_that_change_are_told() -> None:
    watch = LinkWatch("tv")
    concerns = watch._concerns
    assert concerns(RTM_NEWLINK, link("tvp1"))
    assert not concerns(RTM_NEWLINK, link("tvp1"))
    assert concerns(RTM_NEWLINK, link("tvp1", flags=0))
    assert concerns(RTM_NEWLINK, link("tvp1", flags=0, master=8))
    assert concerns(RTM_DELLINK, link("tvp1"))
    assert concerns(RTM_NEWLINK, link("tvp1", flags=0, master=8))
    assert not concerns(RTM_NEWLINK, link("eth0"))
    assert not concerns(RTM_DELLINK, link("eth0"))
    assert not concerns(RTM_DELLINK, link("tvp1", family=7))


def test_deleted_rules_of_ours_are_told() -> None:
    watch = RulesWatch("tv_nat")
    body = b"\0" * 4 + attribute(1, b"tv_nat\0")
    assert watch._concerns((10 << 8) | 2, body)
    assert watch._concerns((10 << 8) | 8, body)
    assert not watch._concerns(10 << 8, body)
    assert not watch._concerns((10 << 8) | 2, b"\0" * 4 + attribute(1, b"filter\0"))
