"""Faults of those who keep a volume's replicas, drawn from a seed: what befalls whom, how long.

A fault is a word (`kill-replica+4.2`) that does not name a node but its part: `holder` is where
the guest runs, with a replica of its own, `replica` where the other one is. So it can be done
again in a lab where they are elsewhere. Beside what befalls a whole node (`cluster_faults`) there
are cuts of the storage network alone, and servers of the data path that die.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from trivet.host import processes
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.cluster_faults import NodeFault, What, strike

_WORD = re.compile(r"([a-z-]+)-(holder|replica)\+([0-9.]+)")
LENGTHS_S = (0.5, 4.0, 12.0)


class Whose(StrEnum):
    """Which node: where the guest runs, or where the other replica is."""

    HOLDER = "holder"
    REPLICA = "replica"


class Harm(StrEnum):
    """What can happen. `servers`: what serves its replica to others and to itself is killed;
    `graph`: the holder's storage daemon is. The last three are of the storage network alone."""

    KILL = "kill"
    PAUSE = "pause"
    CUT = "cut"
    DEAF = "deaf"
    MUTE = "mute"
    SERVERS = "servers"
    GRAPH = "graph"
    STORAGE_CUT = "storage-cut"
    STORAGE_DEAF = "storage-deaf"
    STORAGE_MUTE = "storage-mute"


PROGRAMS = {Harm.SERVERS: "nbdkit", Harm.GRAPH: "qemu-storage-daemon"}


@dataclass(frozen=True)
class VolumeFault:
    """`harm` befalls `whose` node for `seconds` (none for a process that is killed)."""

    harm: Harm
    whose: Whose
    seconds: float

    def __str__(self) -> str:
        return f"{self.harm}-{self.whose}+{self.seconds:.1f}"

    @property
    def ends_guest(self) -> bool:
        """Whether the guest starts again after it."""
        return (self.harm, self.whose) == (Harm.KILL, Whose.HOLDER)

    @classmethod
    def parse(cls, text: str) -> VolumeFault:
        """The fault of that word. Raises `ValueError`."""
        found = _WORD.fullmatch(text)
        if found is None:
            raise ValueError(f"not a fault: {text} (kill-replica+4.2)")
        return cls(Harm(found[1]), Whose(found[2]), float(found[3]))


def drawn(seed: int, count: int) -> list[VolumeFault]:
    """So many faults, the same for the same seed; each comes before one comes again."""
    chosen = random.Random(seed)
    found: list[VolumeFault] = []
    while len(found) < count:
        pairs = [p for p in itertools.product(Harm, Whose) if p != (Harm.GRAPH, Whose.REPLICA)]
        chosen.shuffle(pairs)
        for harm, whose in pairs:
            lasting = chosen.choice(LENGTHS_S) * chosen.uniform(0.8, 1.2)
            seconds = 0.0 if harm in PROGRAMS else round(lasting, 1)
            found.append(VolumeFault(harm, whose, seconds))
    return found[:count]


def befall(lab: Lab, fault: VolumeFault, nodes: Mapping[Whose, str], volume: str) -> None:
    """Let it befall the node whose part it is in `nodes`, and end it. `volume`: its id."""
    node = nodes[fault.whose]
    if (program := PROGRAMS.get(fault.harm)) is not None:
        for pid in servers(lab, node, program, volume):
            os.kill(pid, signal.SIGKILL)
        time.sleep(fault.seconds)
    elif fault.harm.startswith("storage-"):
        what = What(fault.harm.removeprefix("storage-"))
        strike(lab, NodeFault(what, node, fault.seconds), ("storage",))
    else:
        strike(lab, NodeFault(What(fault.harm), node, fault.seconds))


def servers(lab: Lab, node: str, program: str, volume: str) -> list[int]:
    """The processes of `program` on a node that are a volume's."""
    found = []
    for pid in lab.machine(node).pids():
        argv = processes.arguments(pid)
        if argv and argv[0].endswith(program) and any(volume in word for word in argv):
            found.append(pid)
    return found
