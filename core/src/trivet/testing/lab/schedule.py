"""Which part is killed in the middle of what, and when: drawn from a seed, told in a word.

A point is written `storage@create+0.73`: kill storage 0.73 s after a create was asked for. The
word is all that it takes to do it again. A campaign covers every pair of part and operation
before it repeats one, in an order and at moments that follow from its seed.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What can be killed. `qsd` and `nbdkit` are those of a guest's own volume: they are in its
    data path; the others are in nobody's."""

    COMPUTE = "compute"
    STORAGE = "storage"
    NETWORK = "network"
    SECURITY = "security"
    GATEWAY = "gateway"
    NATS = "nats"
    LIBVIRTD = "libvirtd"
    SUPERVISOR = "supervisor"
    DNSMASQ = "dnsmasq"
    QSD = "qsd"
    NBDKIT = "nbdkit"


class During(StrEnum):
    """What goes on meanwhile, on a second guest."""

    STEADY = "steady"
    CREATE = "create"
    DELETE = "delete"
    RESTART = "restart"
    SNAPSHOT = "snapshot"
    PLUG_DISK = "plug-disk"
    PLUG_NIC = "plug-nic"


LONGEST_S = {
    During.STEADY: 0.1,
    During.CREATE: 2.5,
    During.DELETE: 1.5,
    During.RESTART: 4.0,
    During.SNAPSHOT: 0.6,
    During.PLUG_DISK: 4.0,
    During.PLUG_NIC: 4.0,
}
"""About how long each takes undisturbed: later the kill would hit steady state. What is plugged
is taken away again."""

ON_A_RUNNING_GUEST = (During.SNAPSHOT, During.PLUG_DISK, During.PLUG_NIC)
"""Here the data path that is killed is the worked-on guest's own, else it is the steady one's."""

_WORD = re.compile(r"(?P<part>[a-z]+)@(?P<during>[a-z-]+)\+(?P<after>\d+(\.\d+)?)")


@dataclass(frozen=True)
class Point:
    """One kill: of `part`, `after_s` seconds after `during` began."""

    part: Part
    during: During
    after_s: float

    def __str__(self) -> str:
        return f"{self.part}@{self.during}+{self.after_s:g}"

    @classmethod
    def parse(cls, word: str) -> Point:
        """The point of a word. Raises `ValueError` saying what would be one."""
        found = _WORD.fullmatch(word)
        if found is None:
            raise ValueError(f"not a point: {word!r}; one is written like storage@create+0.73")
        return cls(Part(found["part"]), During(found["during"]), float(found["after"]))


def campaign(seed: int) -> Iterator[Point]:
    """The points of a seed, without end."""
    dice = random.Random(seed)
    while True:
        pairs = list(itertools.product(Part, During))
        dice.shuffle(pairs)
        for part, during in pairs:
            yield Point(part, during, round(dice.uniform(0, LONGEST_S[during]), 2))
