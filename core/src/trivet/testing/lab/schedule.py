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
    """What can be killed. `qsd` and `nbdkit` are those of the steady guest's volume: they are
    in its data path; the others are in nobody's."""

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


LONGEST_S = {During.STEADY: 0.1, During.CREATE: 2.5, During.DELETE: 1.5, During.RESTART: 4.0}
"""About how long each takes undisturbed: later the kill would hit steady state."""

_WORD = re.compile(r"(?P<part>[a-z]+)@(?P<during>[a-z]+)\+(?P<after>\d+(\.\d+)?)")


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
