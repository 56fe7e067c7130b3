"""Node: one server of the cluster, as its own agent found it and as the cluster sees it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.resource import Kind, Resource, Scope, Status


class Accel(StrEnum):
    """How guests run: by the processor, or by translation (slow, said out loud)."""

    KVM = "kvm"
    TCG = "tcg"


class NumaCell(Model):
    """A NUMA node: its processors, memory, and free huge pages by page size in KiB."""

    id: int
    cpus: tuple[int, ...]
    memory_mib: int
    hugepages: dict[int, int] = {}


class SriovFunction(Model):
    """A physical function that can have virtual ones."""

    address: str
    interface: str | None
    driver: str | None
    total_vfs: int
    vfs: int


class UsbDevice(Model):
    """A USB device of the host; ids are four hex digits."""

    bus: int
    device: int
    vendor_id: str
    product_id: str
    description: str = ""


class Inventory(Model):
    """What a node has: found by the hypervisor driver, not asked for. `cores` are the processors
    that share a core, where that is known. `cpu_control`: whether CPU shares and limits have an
    effect there (None: not known), and why (not)."""

    hypervisor: str
    hypervisor_version: str
    accel: Accel
    accel_reason: str
    architecture: str = "x86_64"
    cpu_model: str = ""
    cpus: int
    memory_mib: int
    cores: tuple[tuple[int, ...], ...] = ()
    cells: tuple[NumaCell, ...] = ()
    sriov: tuple[SriovFunction, ...] = ()
    usb: tuple[UsbDevice, ...] = ()
    firmware: tuple[str, ...] = ("bios",)
    tpm: bool = False
    cpu_control: bool | None = None
    cpu_control_reason: str = ""


class NodeSpec(Model):
    """`maintenance`: takes no new work; with `evacuate` the replicas it has are moved away, too.
    `overcommit_cpu`: vcpus per processor at most."""

    maintenance: bool = False
    evacuate: bool = False
    overcommit_cpu: float = Field(default=8.0, ge=1, le=64)
    reserved_memory_mib: int = Field(default=1024, ge=0)


class Promise(Model):
    """What a node keeps free for one VM, whether or not it runs. `cpu_pct` are per cent of one
    processor, of those that VMs share; `controlled`: it asks for what only a node with
    `cpu_control` has; `shares` weigh the VM against the others (0: as any, by its vcpus); `pins`
    are the processors that it names. With `exclusive` it wants that many processors, in whole
    cores, for itself, and `cpus` are those that it has."""

    vcpus: int
    memory_mib: int
    cpu_pct: int = 0
    controlled: bool = False
    shares: int = 0
    pins: tuple[int, ...] = ()
    exclusive: int = 0
    cpus: tuple[int, ...] = ()


class NodeStatus(Status):
    """`promises` is the ledger, by VM, and `used_*` its sum; `allocatable_cpu_pct` is of the
    processors that are no VM's own. `heard_at` is when its agent last
    registered or was last heard before it fell silent (UTC)."""

    inventory: Inventory | None = None
    allocatable_vcpus: int = 0
    allocatable_memory_mib: int = 0
    used_vcpus: int = 0
    used_memory_mib: int = 0
    allocatable_cpu_pct: int = 0
    used_cpu_pct: int = 0
    promises: Mapping[ResourceId, Promise] = {}
    address: str | None = None
    heard_at: datetime | None = None


class Node(Resource[NodeSpec, NodeStatus]):
    """A server of the cluster."""

    kind: str = "Node"


NODE = Kind(Node, "node", "nodes", "compute", Scope.CLUSTER, "A server of the cluster")
