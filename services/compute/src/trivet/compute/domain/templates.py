"""What a template is: a VM that others are made from, and that stays as it is.

It is a VM like any other, with disks of its own, so that making one costs nothing and undoing it
neither; only, it never runs and nothing of it changes, so that each clone begins alike. A clone of
it is a VM that runs.
"""

from __future__ import annotations

from trivet.contracts.compute.vm import Power, Vm, VmSpec, WantedPower
from trivet.contracts.errors import IMMUTABLE, INVALID, FieldError, Refused


def check(before: Vm | None, after: VmSpec) -> None:
    """Raises `Refused` where `after` would be a template that runs or that changes."""
    if not after.template:
        return
    if after.power is not WantedPower.STOPPED:
        wrong = FieldError(where="spec.power", message="is that of a template", accepted="stopped")
        raise Refused(INVALID, "a template does not run", hint="stop it first", errors=(wrong,))
    if before is None:
        return
    if before.spec.template:
        _unchanged(before, after)
    elif before.status.power is not Power.STOPPED:
        told = f"VM {before.meta.name} is {before.status.power}: a template does not run"
        raise Refused(INVALID, told, hint=f"stop it first: trivet vm stop {before.meta.name}")


def check_start(vm: Vm) -> None:
    """Raises `Refused(INVALID)` where the VM is a template."""
    if vm.spec.template:
        name = vm.meta.name
        hint = f"`trivet vm clone {name} NEW`, or make it a VM again: --set template=false"
        raise Refused(INVALID, f"{name} is a template, which does not run", hint=hint)


def _unchanged(before: Vm, after: VmSpec) -> None:
    errors = tuple(
        FieldError(where=f"spec.{field}", message="is that of a template")
        for field in VmSpec.model_fields
        if getattr(before.spec, field) != getattr(after, field)
    )
    if errors:
        where = ", ".join(error.where for error in errors)
        hint = f"make it a VM again: trivet vm edit {before.meta.name} --set template=false"
        raise Refused(
            IMMUTABLE, f"{where} of a template can't be changed", hint=hint, errors=errors
        )
