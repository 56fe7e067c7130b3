"""Which VNI a network gets: from its id, then the ones after it.

Two networks that are made at once begin at different places and hardly ever meet; small numbers
are left to those who ask for a certain one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

FIRST = 4096
LAST = 16777215


def candidates(network_id: str, count: int) -> Iterator[int]:
    """`count` VNIs to try, in order."""
    room = LAST - FIRST + 1
    start = int.from_bytes(hashlib.sha256(network_id.encode()).digest()[:8]) % room
    for step in range(count):
        yield FIRST + (start + step) % room
