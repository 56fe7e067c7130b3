"""Which VMs are on which node, and which of them shun others: kept as VMs change, so that a
decision needs not go through all of them.

A VM that was just given a node counts before that is on record (`give`), or two who must be apart
could be placed together in between; from `settle` on its record counts again.
"""

from __future__ import annotations

from collections import defaultdict

from trivet.contracts.compute.vm import Vm
from trivet.runtime.collection import Collection

Where = tuple[str | None, str]


class VmNames:
    """The VMs that have a node, by project and node."""

    def __init__(self, vms: Collection[Vm]) -> None:
        self._vms = vms
        self._placed: dict[str, Vm] = {}
        self._names: dict[Where, dict[str, None]] = defaultdict(dict)
        self._shunning: set[str] = set()
        self._given: set[str] = set()
        vms.on_change(self.changed)

    def changed(self, key: str) -> None:
        """The VM of that key is another, or gone."""
        if key in self._given:
            return
        vm = self._vms.by_key(key)
        self._put(key, vm if vm is not None and vm.status.node is not None else None)

    def give(self, vm: Vm, node: str) -> None:
        """The VM counts as on that node, until `settle`."""
        key = self._vms.key_of(vm)
        self._given.add(key)
        self._put(key, vm.with_status(node=node))

    def settle(self, key: str) -> None:
        """What the copy says of the VM of that key counts again."""
        self._given.discard(key)
        self.changed(key)

    def on(self, project: str | None, node: str) -> tuple[str, ...]:
        """The names of a project's VMs on a node."""
        return tuple(self._names.get((project, node), ()))

    def that_matter(self, vm: Vm) -> list[Vm]:
        """Those that have a node and whose whereabouts can concern `vm`: whom it names, and
        who names others that it must be apart from."""
        kind, project = self._vms.kind, vm.meta.project
        wish = vm.spec.placement
        named = (kind.key(project, name) for name in (*wish.keep_together, *wish.keep_apart))
        found = (self._placed.get(key) for key in dict.fromkeys((*named, *sorted(self._shunning))))
        return [vm for vm in found if vm is not None and vm.meta.project == project]

    def _put(self, key: str, vm: Vm | None) -> None:
        old = self._placed.pop(key, None)
        if old is not None and old.status.node is not None:
            self._names[old.meta.project, old.status.node].pop(old.meta.name, None)
        self._shunning.discard(key)
        if vm is None or vm.status.node is None:
            return
        self._placed[key] = vm
        self._names[vm.meta.project, vm.status.node][vm.meta.name] = None
        if vm.spec.placement.keep_apart:
            self._shunning.add(key)
