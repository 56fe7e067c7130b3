"""What the acts that change a VM's spec have in common: checked like an edit, and repeatable."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from trivet.compute.domain.edits import named
from trivet.compute.endpoints.vms import admitted
from trivet.compute.parts import Parts, not_deleting
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import CONFLICT, Refused
from trivet.runtime.call import malformed

ATTEMPTS = 10


async def edit_spec(parts: Parts, ref: Ref, change: Callable[[VmSpec], VmSpec]) -> Vm:
    """The VM asking for what `change` makes of its spec (in which all cards have names); over
    conflicts, each time from a fresh read. Raises `Refused`."""
    for _ in range(ATTEMPTS):
        before = await parts.vm(ref.name, ref.project)
        not_deleting(before)
        try:
            wanted = change(named(None, before.spec))
        except ValidationError as error:
            raise malformed(error) from error
        after = await admitted(parts, before, before.with_spec(wanted))
        try:
            return await parts.vms.write(before, after)
        except Refused as error:
            if error.code is not CONFLICT:
                raise
    raise Refused(CONFLICT, f"vm {ref.name} changes too often to be edited")
