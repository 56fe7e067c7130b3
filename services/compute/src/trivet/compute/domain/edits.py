"""Which changes of a VM's disks and cards are possible, and which card is which.

A disk is known by its name, a card too. The first disk is what the VM boots from: it stays. What
is kept under its name keeps what it was made with, but for what can change in place: a disk's
size upwards, a card's security groups.
"""

from __future__ import annotations

from trivet.compute.domain.hardware import card_name, card_names
from trivet.contracts.compute.codes import BOOT_DISK
from trivet.contracts.compute.vm import NicRequest, VmSpec
from trivet.contracts.errors import IMMUTABLE, FieldError, Refused
from trivet.contracts.storage.codes import SHRINK


def named(before: VmSpec | None, after: VmSpec) -> VmSpec:
    """`after` with a name for each card. One without is, in order, the next card of `before`
    on the same network with the same address that is not named in `after`; else a new one, by
    the lowest free number."""
    given = {nic.name for nic in after.nics if nic.name is not None}
    old = list(zip(card_names(before), before.nics, strict=True)) if before else []
    free = [(name, nic) for name, nic in old if name not in given]
    taken = given | {name for name, _ in old}
    nics = []
    for nic in after.nics:
        name = nic.name or _same_card(nic, free) or _lowest_free(taken)
        taken.add(name)
        nics.append(nic.model_copy(update={"name": name}))
    return after.model_copy(update={"nics": tuple(nics)})


def _same_card(nic: NicRequest, free: list[tuple[str, NicRequest]]) -> str | None:
    for i, (name, old) in enumerate(free):
        if old.network == nic.network and nic.address == old.address:
            del free[i]
            return name
    return None


def _lowest_free(taken: set[str]) -> str:
    return next(name for name in map(str, range(len(taken) + 1)) if name not in taken)


def check_disks(before: VmSpec, after: VmSpec) -> None:
    """Raises `Refused`: `vm.boot_disk`, `volume.shrink`, `resource.immutable_field`."""
    if before.disks and [d.name for d in after.disks[:1]] != [before.disks[0].name]:
        first = before.disks[0].name
        wrong = FieldError(where="spec.disks.0", message="is the boot disk", accepted=first)
        raise Refused(BOOT_DISK, f"disk {first} is what the VM boots from", errors=(wrong,))
    old = {disk.name: disk for disk in before.disks}
    errors = []
    for i, disk in enumerate(after.disks):
        had = old.get(disk.name)
        if had is None:
            continue
        if disk.size_gib < had.size_gib:
            wrong = FieldError(
                where=f"spec.disks.{i}.size_gib",
                message="can't become smaller",
                accepted=f"at least {had.size_gib}",
            )
            raise Refused(SHRINK, f"disk {disk.name} can't shrink", errors=(wrong,))
        errors += [
            FieldError(where=f"spec.disks.{i}.{field}", message="can't be changed")
            for field in type(disk).model_fields
            if field != "size_gib" and getattr(disk, field) != getattr(had, field)
        ]
    _refuse("disk", errors)


def check_nics(before: VmSpec, after: VmSpec) -> None:
    """Raises `Refused(IMMUTABLE)`; both have names for their cards."""
    old = dict(zip(card_names(before), before.nics, strict=True))
    errors = []
    for i, nic in enumerate(after.nics):
        had = old.get(card_name(nic, i))
        if had is None:
            continue
        errors += [
            FieldError(where=f"spec.nics.{i}.{field}", message="can't be changed")
            for field in type(nic).model_fields
            if field not in ("name", "security_groups", "qos")
            and getattr(nic, field) != getattr(had, field)
        ]
    _refuse("nic", errors)


def _refuse(what: str, errors: list[FieldError]) -> None:
    if errors:
        where = ", ".join(error.where for error in errors)
        hint = f"take the {what} away and add another, under another name"
        raise Refused(IMMUTABLE, f"{where} can't be changed", hint=hint, errors=tuple(errors))
