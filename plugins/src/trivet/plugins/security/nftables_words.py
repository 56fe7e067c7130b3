"""Small words of nft that several modules say."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.contracts.security.evaluate import spans
from trivet.contracts.security.group import Protocol

Span = tuple[int, int]


def braces(items: Iterable[str]) -> str:
    """An anonymous set."""
    return "{ " + ", ".join(items) + " }"


def merge_spans(found: Iterable[Span]) -> list[Span]:
    """Spans as few spans that neither overlap nor touch."""
    merged: list[Span] = []
    for first, last in sorted(found):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def without(found: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """What is in `found` and not in `taken`; both are merged."""
    left: list[Span] = []
    holes = list(taken)
    for first, last in found:
        at = first
        for low, high in holes:
            if high < at or low > last:
                continue
            if low > at:
                left.append((at, low - 1))
            at = high + 1
        if at <= last:
            left.append((at, last))
    return left


def span_text(span: Span) -> str:
    """A port or a range."""
    first, last = span
    return str(first) if first == last else f"{first}-{last}"


def merge_ports(ports: tuple[str, ...]) -> list[str]:
    """Ports and ranges as few ranges that do not touch (nft refuses overlapping ones)."""
    return [span_text(s) for s in merge_spans(spans(ports))]


def dport(protocol: Protocol, ports: Iterable[str]) -> str:
    """A match of destination ports."""
    texts = list(ports)
    return f"{protocol.value} dport {texts[0] if len(texts) == 1 else braces(texts)}"


def protocol_match(protocol: Protocol) -> list[str]:
    """A match of the protocol alone."""
    return {
        Protocol.ANY: [],
        Protocol.ICMP: ["meta l4proto { icmp, ipv6-icmp }"],
        Protocol.TCP: ["meta l4proto tcp"],
        Protocol.UDP: ["meta l4proto udp"],
    }[protocol]
