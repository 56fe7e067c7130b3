"""What a clone of a VM asks for: the same, but for what makes a VM itself.

Its cards get addresses and MACs of their own, its seed another instance id (with which cloud-init
begins anew), its processors none by number; a CD-ROM stays where it is.
"""

from __future__ import annotations

from trivet.contracts.compute.vm import Vm, VmSpec, WantedPower
from trivet.contracts.storage.volume import CloneMode


def clone_of(vm: Vm, mode: CloneMode, power: WantedPower) -> VmSpec:
    """The spec of a new VM that is a clone of `vm`."""
    spec = vm.spec
    return spec.model_copy(
        update={
            "image": None,
            "iso": None,
            "origin": vm.meta.name,
            "clone": mode.value,
            "power": power,
            "template": False,
            "nics": tuple(nic.model_copy(update={"address": None}) for nic in spec.nics),
            "cpu": spec.cpu.model_copy(update={"pin": ()}),
        }
    )
