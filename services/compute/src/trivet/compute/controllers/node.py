"""The duty of the leader towards nodes: who is heard from, whose room is held for nobody.

A node that is not heard from for a named bound becomes `unknown`, and so does the power of its
VMs: they may run. Nothing is started elsewhere for that reason alone.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from functools import partial

from trivet.compute.domain import vm_status
from trivet.compute.domain.capacity import stale_promises, without_promise
from trivet.compute.domain.node_health import is_silent, judged, remains, skewed
from trivet.compute.node.registration import BEATS_IN_SILENCE, FINALIZER, beat_subject
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import TrivetError
from trivet.contracts.storage.endpoints.node_outlook import ENDPOINT as OUTLOOK
from trivet.runtime.bus import Message
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service

log = logging.getLogger(__name__)


class NodeController:
    """Keeps the nodes' records true."""

    def __init__(self, service: Service, nodes: Collection[Node], vms: Collection[Vm]) -> None:
        self._runtime = service.runtime
        self._nodes = nodes
        self._vms = vms
        self._silent_s = self._runtime.settings.compute.node_silent_s
        self._heard: dict[str, float] = {}
        self._met: dict[str, float] = {}
        self._skew_s: dict[str, float] = {}

    async def run(self) -> None:
        """Work until cancelled. A new leader gives every node the whole bound to be heard."""
        self._heard.clear()
        self._met.clear()
        subscription = await self._runtime.bus.subscribe(beat_subject("*"), self._beat)
        try:
            while True:
                for node in self._nodes.list():
                    await self.look(node)
                await self._runtime.clock.sleep(self._silent_s / BEATS_IN_SILENCE)
        finally:
            await subscription.stop()

    async def _beat(self, message: Message) -> None:
        name = message.subject.rsplit(".", 1)[-1]
        self._heard[name] = self._runtime.clock.monotonic()
        try:
            at = datetime.fromisoformat(json.loads(message.data)["at"])
            self._skew_s[name] = (at - self._runtime.clock.now()).total_seconds()
        except (ValueError, KeyError, TypeError):
            log.warning("%s beats without its time", name)

    async def look(self, node: Node) -> None:
        """Bring one node's record up to date."""
        now, mono = self._runtime.clock.now(), self._runtime.clock.monotonic()
        name, key = node.meta.name, self._nodes.key_of(node)
        met = self._met.setdefault(name, mono)
        silent_s = mono - self._heard.get(name, met)
        # One known as silent is not silent no more because a new leader has just met it.
        decided = name in self._heard or is_silent(silent_s, self._silent_s)
        if decided and judged(node, silent_s, self._silent_s, now) is not node:
            log.warning("%s was silent for %.1f s", node, silent_s)
            await self._nodes.mutate(key, lambda n: judged(n, silent_s, self._silent_s, now))
        if is_silent(silent_s, self._silent_s):
            await self._lose_vms(node)
        else:
            await self._tell_skew(node)
        await self._drop_stale_promises(node)
        if node.meta.deleting_at is not None:
            await self._finish(node)

    async def _tell_skew(self, node: Node) -> None:
        skew_s, now = self._skew_s.get(node.meta.name), self._runtime.clock.now()
        if skew_s is not None and skewed(node, skew_s, now) is not node:
            change = partial(skewed, skew_s=skew_s, now=now)
            await self._nodes.mutate(self._nodes.key_of(node), change)

    async def _lose_vms(self, node: Node) -> None:
        now = self._runtime.clock.now()
        name = node.meta.name
        message = f"its node {name} is not heard from; it may run"

        def lose(vm: Vm) -> Vm:
            return vm_status.lost(vm, message, now) if vm.status.node == name else vm

        for vm in self._on(node):
            if vm.status.power is not Power.UNKNOWN:
                await self._vms.mutate(self._vms.key_of(vm), lose)

    async def _drop_stale_promises(self, node: Node) -> None:
        """Give back room that a lost claim holds."""
        promises = node.status.promises
        known = ((id_, self._vms.by_id(id_)) for id_ in promises)
        placed = {id_: vm.status.node for id_, vm in known if vm is not None}
        gone = frozenset(promises.keys() - placed.keys())
        for vm in stale_promises(node, placed, gone):
            log.info("%s: its promise to %s holds room for nobody", node, vm)
            await self._nodes.mutate(self._nodes.key_of(node), partial(without_promise, vm=vm))

    async def _finish(self, node: Node) -> None:
        """Remove a deleted node once no VM is on it, and no data are."""
        key, now = self._nodes.key_of(node), self._runtime.clock.now()
        why = remains(node, [vm.meta.name for vm in self._on(node)], await self._volumes_on(node))
        if why is not None:
            await self._nodes.mutate(
                key, lambda n: n.model_copy(update={"status": n.status.with_condition(why, now)})
            )
            return
        gone = await self._nodes.mutate(
            key,
            lambda n: n.with_meta(finalizers=tuple(f for f in n.meta.finalizers if f != FINALIZER)),
        )
        if gone is not None and not gone.meta.finalizers:
            await self._nodes.remove(gone)

    async def _volumes_on(self, node: Node) -> list[str] | None:
        """The volumes that still have data on a node; None: nobody knows now."""
        try:
            answer = await self._runtime.client.call(OUTLOOK, Ref(name=node.meta.name))
        except TrivetError as error:
            log.info("%s: the storage service does not tell what lies there: %s", node, error)
            return None
        return [at_stake.volume for at_stake in answer.volumes]

    def _on(self, node: Node) -> list[Vm]:
        return [vm for vm in self._vms.list() if vm.status.node == node.meta.name]
