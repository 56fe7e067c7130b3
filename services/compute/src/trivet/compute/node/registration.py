"""A node's record in the cluster, and its heartbeat.

The record says what the node has and what of it can be promised; it is written when that
changes and not otherwise. That the node lives is told by core messages that never enter the
store: a beat every few seconds, which the leading controller hears.
"""

from __future__ import annotations

import json
from datetime import datetime

from trivet.compute.domain.capacity import allocatable_memory_mib, summed
from trivet.compute.node.vm_agent import VmAgent
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.node import NODE, Inventory, Node, NodeSpec, NodeStatus
from trivet.contracts.errors import NAME_TAKEN, Refused
from trivet.contracts.resource import Condition, Meta, Phase
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service

BEATS_IN_SILENCE = 5
FINALIZER = "controller"


def beat_subject(node: str) -> str:
    """Where a node's heartbeat is heard; '*' for all nodes."""
    return f"trivet.beat.compute.{node}"


class Registration:
    """This node's record and heartbeat."""

    def __init__(
        self,
        service: Service,
        nodes: Collection[Node],
        hypervisor: Hypervisor,
        vms: VmAgent,
    ) -> None:
        self._runtime = service.runtime
        self._nodes = nodes
        self._hypervisor = hypervisor
        self._vms = vms
        self._key = nodes.kind.key(None, service.runtime.node)
        self._was: Phase | None = None
        nodes.on_change(self._changed)

    def _changed(self, key: str) -> None:
        """Once the cluster hears this node again, what its VMs do is told at once."""
        if key != self._key:
            return
        node = self._nodes.by_key(key)
        phase = node.status.phase if node else None
        if self._was is Phase.UNKNOWN and phase is not Phase.UNKNOWN:
            self._vms.wake_all()
        self._was = phase

    async def run_beats(self) -> None:
        """Beat until cancelled."""
        every_s = self._runtime.settings.compute.node_silent_s / BEATS_IN_SILENCE
        subject = beat_subject(self._runtime.node)
        while True:
            beat = {"node": self._runtime.node, "at": self._runtime.clock.now().isoformat()}
            await self._runtime.bus.publish(subject, json.dumps(beat).encode())
            await self._runtime.clock.sleep(every_s)

    async def run(self) -> None:
        """Keep the record true until cancelled."""
        first = True
        while True:
            await self.register(came_up=first)
            first = False
            await self._runtime.clock.sleep(self._runtime.settings.compute.look_s)

    async def register(self, *, came_up: bool) -> Node:
        """Write what the node has; `came_up`: this agent has just begun, and was heard."""
        inventory = await self._hypervisor.inventory()
        now = self._runtime.clock.now()
        address = self._runtime.settings.address

        def change(node: Node) -> Node:
            return described(node, inventory, address, now if came_up else None)

        while True:
            written = await self._nodes.mutate(self._key, change)
            if written is not None:
                return written
            try:
                return await self._nodes.create(described(self._new(now), inventory, address, now))
            except Refused as error:
                if error.code is not NAME_TAKEN:
                    raise

    def _new(self, now: datetime) -> Node:
        meta = Meta(
            id=new_id(NODE.name), name=self._runtime.node, created_at=now, finalizers=(FINALIZER,)
        )
        return Node(meta=meta, spec=NodeSpec(), status=NodeStatus())


def described(node: Node, inventory: Inventory, address: str, came_up: datetime | None) -> Node:
    """`node` with what was found on it; with `came_up`, heard of at that time."""
    changed = summed(
        node.with_status(
            inventory=inventory,
            allocatable_memory_mib=allocatable_memory_mib(node.spec, inventory),
            address=address,
            observed_generation=node.meta.generation,
        )
    )
    if came_up is None:
        return changed
    heard = Condition(type="Heard", status="true", reason="CameUp", message="its agent began")
    phase = Phase.DELETING if node.meta.deleting_at else Phase.READY
    status = changed.with_status(heard_at=came_up, phase=phase).status
    return changed.model_copy(update={"status": status.with_condition(heard, came_up)})
