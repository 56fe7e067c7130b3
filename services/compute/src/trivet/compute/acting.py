"""What the four acts on a VM's power have in common: the wanted power changes, checked."""

from __future__ import annotations

from collections.abc import Callable

from trivet.compute.domain.power import Verb, after
from trivet.compute.domain.templates import check_start
from trivet.compute.parts import Parts, not_deleting
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.runtime.crud import not_found


def unchanged(vm: Vm) -> Vm:
    """The further change of an act that has none."""
    return vm


async def set_power(
    parts: Parts, ref: Ref, verb: Verb, further: Callable[[Vm], Vm] = unchanged
) -> Vm:
    """Want what `verb` wants of the VM, and make the `further` change, in one write."""

    def change(vm: Vm) -> Vm:
        not_deleting(vm)
        if verb is Verb.START:
            check_start(vm)
        spec = vm.spec.model_copy(update={"power": after(verb, vm.spec.power)})
        return further(vm.with_spec(spec))

    found = await parts.vm(ref.name, ref.project)
    changed = await parts.vms.mutate(parts.vms.key_of(found), change)
    if changed is None:
        raise not_found(parts.vms.kind, ref.name, ref.project)
    return changed
