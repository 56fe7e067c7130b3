"""Judges a run from outside: it knows guests, blocks, replicas' bytes and the record, no protocol.

For each block it keeps which values a guest may find. An acknowledged write is found by its own
guest from then on. A new guest begins as after a power cut: it finds what was acknowledged, or,
if a machine lost power since the last flush, what was there at that flush or anything written
since; and what was on the way may be there or not. What a guest has read it finds again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.sim_machine import BLOCKS, World

from trivet.contracts.storage.volume import ReplicaState, Volume


class Violation(AssertionError):
    """What must never happen has happened."""


@dataclass
class Block:
    """`now`: what the living guest must find; None: any of `possible`. `after_cut`: what may be
    found once a machine has lost power. `on_the_way`: issued, and neither acknowledged nor
    repeated."""

    now: int | None = 0
    possible: set[int] = field(default_factory=lambda: {0})
    after_cut: set[int] = field(default_factory=lambda: {0})
    since_flush: list[tuple[float, int]] = field(default_factory=list)
    on_the_way: int | None = None
    writing_since: float = 0.0
    overwritten: bool = False


class Checker:
    """The judge of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.blocks = [Block() for _ in range(BLOCKS)]
        self.guest = 0
        self.acked = 0
        self.reads = 0
        self._cuts_at_flush = 0
        self._late: dict[int, int] = {}

    # --- what the guests tell ---

    def new_guest(self, guest: int) -> None:
        """A new holder begins. An older one may still hear of what was on the way by then, and is
        never acknowledged anything that it asked for later."""
        self.guest = guest
        lost_power = self._world.power_cuts > self._cuts_at_flush
        for number, block in enumerate(self.blocks):
            if block.on_the_way is not None:
                self._late[block.on_the_way] = number
            block.overwritten = False
            found = set(block.possible) if block.now is None else {block.now}
            if lost_power:
                found |= block.after_cut
            if block.on_the_way is not None:
                found.add(block.on_the_way)
            block.possible, block.now, block.on_the_way = found, None, None
            # What the former guest was told may be lost by now: a flush keeps what is there.
            block.since_flush = []
            block.after_cut = block.after_cut | found
            if len(found) == 1:
                (block.now,) = found

    def issued(self, guest: int, number: int, value: int, now: float) -> None:
        if guest != self.guest:
            return
        block = self.blocks[number]
        block.on_the_way, block.writing_since, block.overwritten = value, now, True
        block.after_cut.add(value)

    def acknowledged(self, guest: int, number: int, value: int, volume: Volume, now: float) -> None:
        block = self.blocks[number]
        if guest != self.guest:
            self._acknowledged_late(guest, number, value)
            return
        self.acked += 1
        if block.on_the_way == value:
            block.on_the_way = None
        block.now, block.possible = value, {value}
        block.since_flush.append((now, value))
        self._all_in_sync_have(volume, number, value, block.writing_since)

    def _acknowledged_late(self, guest: int, number: int, value: int) -> None:
        """What an earlier holder hears now was done before the present one began, which finds it
        unless it has written there itself."""
        if self._late.get(value) != number:
            raise Violation(f"guest {guest} was told that {value} is written: {self.guest} holds")
        block = self.blocks[number]
        if block.overwritten:
            return
        if block.now not in (None, value) or (block.now is None and value not in block.possible):
            raise Violation(f"block {number}: {value} was acknowledged late and is not there")

    def flushed(self, guest: int, issued_at: float, cuts: int) -> None:
        """A flush that was asked for at `issued_at`, `cuts` power cuts after the beginning."""
        if guest != self.guest:
            return
        for block in self.blocks:
            before = [v for at, v in block.since_flush if at <= issued_at]
            later = [(at, v) for at, v in block.since_flush if at > issued_at]
            if before:
                block.after_cut = {before[-1]}
            elif not block.since_flush:
                block.after_cut = set(block.possible) if block.now is None else {block.now}
            block.after_cut |= {v for _, v in later}
            if block.on_the_way is not None:
                block.after_cut.add(block.on_the_way)
            block.since_flush = later
        self._cuts_at_flush = cuts

    def found(self, guest: int, number: int, value: int) -> None:
        """A guest has read a block that it does not write at the same time."""
        if guest != self.guest:
            return
        self.reads += 1
        block = self.blocks[number]
        allowed = block.possible if block.now is None else {block.now}
        if value not in allowed:
            raise Violation(f"block {number}: {value} was read, of {sorted(allowed)}")
        block.now, block.possible = value, {value}

    # --- what lies on the disks ---

    def _all_in_sync_have(self, volume: Volume, number: int, value: int, since: float) -> None:
        if not any(r.state is ReplicaState.IN_SYNC for r in volume.status.replicas):
            raise Violation(f"block {number}: {value} was acknowledged, and nobody is in sync")
        for replica in volume.status.replicas:
            machine = self._world.machines[replica.node]
            if replica.state is not ReplicaState.IN_SYNC or machine.disk is None:
                continue
            # Who lost power while it was written may have lost it: that shows at its next flush.
            if not machine.up or machine.powered_at > since:
                continue
            if machine.disk.read(number) != value:
                raise Violation(
                    f"block {number}: {value} was acknowledged, {replica.node} is in sync and has"
                    f" {machine.disk.read(number)}"
                )

    def at_rest(self, volume: Volume) -> None:
        """Nobody writes any more and all was flushed: what is in sync is the same, and right."""
        self.new_guest(self.guest + 1)
        good = [r for r in volume.status.replicas if r.state is ReplicaState.IN_SYNC]
        contents = [(r.node, self._world.machines[r.node].disk) for r in good]
        for number, block in enumerate(self.blocks):
            values = {node: disk.read(number) for node, disk in contents if disk is not None}
            if len(set(values.values())) > 1:
                raise Violation(f"block {number} differs at rest: {values}")
            for node, value in values.items():
                allowed = block.possible if block.now is None else {block.now}
                if value not in allowed:
                    raise Violation(f"block {number} of {node} is {value}, of {sorted(allowed)}")
