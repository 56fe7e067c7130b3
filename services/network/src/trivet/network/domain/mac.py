"""MAC addresses that follow from ids: the same id always has the same one.

They are unicast and locally administered (RFC 7042), so they never meet a manufacturer's.
"""

from __future__ import annotations

import hashlib


def mac_of(seed: str, attempt: int = 0) -> str:
    """The MAC for an id; further attempts give others, for when one is taken."""
    octets = bytearray(hashlib.sha256(f"{seed}/{attempt}".encode()).digest()[:6])
    octets[0] = (octets[0] & 0xFC) | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)
