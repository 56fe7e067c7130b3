"""Faults of those who keep a volume's replicas, drawn from a seed: what befalls whom, how long.

A fault is a word (`kill-replica+4.2`) that does not name a node but its part: `holder` is where
the guest runs, with a replica of its own, `replica` where the other one is. So it can be done
again in a lab where they are elsewhere. Beside what befalls a whole node (`cluster_faults`) there
are cuts of the storage network alone, servers of the data path and of the control plane that die,
a disk that is slow, a clock that jumps, and bytes that rot. A seed stands for one fault, so that
a long campaign is a range of seeds: any of them can be done alone, or be left out.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from trivet.host import processes
from trivet.testing.lab import disks
from trivet.testing.lab.cluster import Lab
from trivet.testing.lab.cluster_faults import NodeFault, What, strike

_WORD = re.compile(r"([a-z-]+)-(holder|replica)\+([0-9.]+)")
LENGTHS_S = (0.5, 4.0, 12.0)
CAMPAIGN_LENGTHS_S = (0.5, 2.0, 4.0, 8.0)
"""Those of a campaign: shorter, for there are many."""
SLOW_MS = 20


class Whose(StrEnum):
    """Which node: where the guest runs, or where the other replica is."""

    HOLDER = "holder"
    REPLICA = "replica"


class Harm(StrEnum):
    """What can happen. `servers`: what serves its replica to others and to itself is killed;
    `graph`: the holder's storage daemon is. Three are of the storage network alone. `service`:
    the storage service is killed, `bus`: the node's server of the bus, `parts`: all services.
    `slow`: its disks are. `rot`: bytes of its replica change by themselves."""

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
    SERVICE = "service"
    BUS = "bus"
    PARTS = "parts"
    CLOCK = "clock"
    SLOW = "slow"
    ROT = "rot"


PROGRAMS = {Harm.SERVERS: "nbdkit", Harm.GRAPH: "qemu-storage-daemon"}
"""Those of the volume's data path."""
PARTS = {
    Harm.SERVICE: ("trivet.storage",),
    Harm.BUS: ("nats-server",),
    Harm.PARTS: tuple(f"trivet.{s}" for s in ("storage", "compute", "network", "security")),
}
"""Words of the command lines of those of a node; each is started again by itself."""
AT_ONCE = frozenset({*PROGRAMS, *PARTS, Harm.ROT})
"""What does not last."""
EVERY = tuple(p for p in itertools.product(Harm, Whose) if p != (Harm.GRAPH, Whose.REPLICA))


@dataclass(frozen=True)
class VolumeFault:
    """`harm` befalls `whose` node for `seconds` (none for a process that is killed)."""

    harm: Harm
    whose: Whose
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind}+{self.seconds:.1f}"

    @property
    def ends_guest(self) -> bool:
        """Whether the guest starts again after it."""
        return (self.harm, self.whose) == (Harm.KILL, Whose.HOLDER)

    @property
    def kind(self) -> str:
        """What befalls whom, however long."""
        return f"{self.harm}-{self.whose}"

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
        pairs = list(EVERY)
        chosen.shuffle(pairs)
        found.extend(_fault(harm, whose, chosen, LENGTHS_S) for harm, whose in pairs)
    return found[:count]


def of_seed(seed: int) -> VolumeFault:
    """The fault that a seed of a campaign stands for; seeds that follow each other have each
    kind once before one comes again."""
    turn, place = divmod(seed, len(EVERY))
    pairs = list(EVERY)
    random.Random(turn).shuffle(pairs)
    return _fault(*pairs[place], random.Random(seed), CAMPAIGN_LENGTHS_S)


def _fault(
    harm: Harm, whose: Whose, chosen: random.Random, lengths_s: Sequence[float]
) -> VolumeFault:
    lasting = chosen.choice(lengths_s) * chosen.uniform(0.8, 1.2)
    return VolumeFault(harm, whose, 0.0 if harm in AT_ONCE else round(lasting, 1))


def befall(lab: Lab, fault: VolumeFault, nodes: Mapping[Whose, str], volume: str) -> None:
    """Let it befall the node whose part it is in `nodes`, and end it. `volume`: its id."""
    node, harm = nodes[fault.whose], fault.harm
    if harm in PROGRAMS:
        _kill(servers(lab, node, PROGRAMS[harm], volume))
    elif harm in PARTS:
        _kill(pid for part in PARTS[harm] for pid in _parts(lab, node, part))
    elif harm is Harm.SLOW:
        _be_slow(lab, node, fault.seconds)
    elif harm is Harm.ROT:
        rot(replica_file(lab, node, volume), random.Random(volume))
    elif harm.startswith("storage-"):
        what = What(harm.removeprefix("storage-"))
        strike(lab, NodeFault(what, node, fault.seconds), ("storage",))
    else:
        strike(lab, NodeFault(What(harm), node, fault.seconds))


def servers(lab: Lab, node: str, program: str, volume: str) -> list[int]:
    """The processes of `program` on a node that are a volume's."""
    found = []
    for pid in lab.machine(node).pids():
        argv = processes.arguments(pid)
        if argv and argv[0].endswith(program) and any(volume in word for word in argv):
            found.append(pid)
    return found


def replica_file(lab: Lab, node: str, volume: str) -> Path:
    """The file of a replica, as seen from outside the node that has mounted it."""
    inside = Path(f"/proc/{lab.machine(node).pid}/root")
    (found,) = inside.joinpath(*lab.plan.layout(node).state.parts[1:]).glob(
        f"**/pools/*/replicas/{volume}.raw"
    )
    return found


def rot(file: Path, chosen: random.Random) -> int:
    """Flip a bit of a byte among those that `file` has; where that is."""
    with file.open("r+b") as held:
        begin = os.lseek(held.fileno(), 0, os.SEEK_DATA)
        place = chosen.randrange(begin, os.lseek(held.fileno(), begin, os.SEEK_HOLE))
        (byte,) = os.pread(held.fileno(), 1, place)
        os.pwrite(held.fileno(), bytes((byte ^ (1 << chosen.randrange(8)),)), place)
    return place


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _parts(lab: Lab, node: str, part: str) -> list[int]:
    arguments = ((pid, processes.arguments(pid)) for pid in lab.machine(node).pids())
    return [pid for pid, argv in arguments if part in argv or (argv and Path(argv[0]).name == part)]


def _be_slow(lab: Lab, node: str, seconds: float) -> None:
    there = disks.disks_of(lab.plan, node)
    for disk in there:
        disks.slow(disk, SLOW_MS)
    time.sleep(seconds)
    for disk in there:
        disks.put_in(disk)
