"""Faults of a cluster's nodes, drawn from a seed: what befalls which node, and for how long.

A fault is a word (`kill-n2+4.2`), so that one that found something can be done again. It takes
one node at a time, so that the others are always most of them. Between two of them the cluster
gets whole again, or, half of the time, does not quite: the next one strikes as soon as the bus
has all its copies.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.plan import NETS

FAULT = re.compile(r"([a-z-]+)-(n[0-9]+)\+([0-9.]+)")


class What(StrEnum):
    """What can befall a node."""

    KILL = "kill"
    PAUSE = "pause"
    CUT = "cut"
    DEAF = "deaf"
    MUTE = "mute"
    CLOCK = "clock"


@dataclass(frozen=True)
class NodeFault:
    """`what` befalls `node` for `seconds`."""

    what: What
    node: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what}-{self.node}+{self.seconds:.1f}"

    @classmethod
    def parse(cls, text: str) -> NodeFault:
        """The fault of that word. Raises `ValueError`."""
        found = FAULT.fullmatch(text)
        if found is None:
            raise ValueError(f"not a fault: {text} (kill-n2+4.2)")
        return cls(What(found[1]), found[2], float(found[3]))


def drawn(seed: int, count: int, nodes: Sequence[str]) -> list[NodeFault]:
    """So many faults, the same for the same seed; each kind comes before one comes again."""
    chosen = random.Random(seed)
    found: list[NodeFault] = []
    while len(found) < count:
        kinds = list(What)
        chosen.shuffle(kinds)
        for what in kinds:
            seconds = round(chosen.choice((0.5, 4.0, 12.0, 25.0)) * chosen.uniform(0.8, 1.2), 1)
            found.append(NodeFault(what, chosen.choice(nodes), seconds))
    return found[:count]


def strike(lab: Lab, fault: NodeFault, nets: Sequence[str] = NETS) -> None:
    """Let it befall the node, and end it. Cuts are of `nets` alone."""
    node, others = fault.node, [n for n in lab.plan.names if n != fault.node]
    match fault.what:
        case What.KILL:
            lab.kill(node)
        case What.PAUSE:
            lab.pause(node)
        case What.CUT:
            lab.cut(node, (), nets, one_way=False)
        case What.DEAF:
            lab.cut(node, others, nets, one_way=True)
        case What.MUTE:
            for other in others:
                lab.cut(other, [node], nets, one_way=True)
        case What.CLOCK:
            lab.clock(node, 3600 if fault.seconds > 4 else -3600)
    time.sleep(fault.seconds)
    match fault.what:
        case What.KILL:
            lab.start(node)
        case What.PAUSE:
            lab.resume(node)
        case What.CUT | What.DEAF | What.MUTE:
            lab.heal()
        case What.CLOCK:
            lab.clock(node, 0)
