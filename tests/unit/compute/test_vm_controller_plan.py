"""The controllers' plans and small tables: VMs, images, nodes, orphans, power."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from trivet.compute.domain import image_plan, vm_plan
from trivet.compute.domain.capacity import need_of
from trivet.compute.domain.node_health import judged
from trivet.compute.domain.orphans import Fate, fate
from trivet.compute.domain.power import TRANSITIONS, Verb, after, edited
from trivet.compute.domain.vm_parts import (
    Part,
    Sources,
    check_names,
    port_requests,
    volume_requests,
)
from trivet.contracts.compute.hypervisor import DomainState
from trivet.contracts.compute.image import Image, ImageSourceSpec, ImageSpec, ImageStatus
from trivet.contracts.compute.node import Node, NodeSpec, NodeStatus
from trivet.contracts.compute.vm import (
    DiskRequest,
    NicRequest,
    Power,
    Vm,
    VmDisk,
    VmNic,
    VmSpec,
    VmStatus,
    WantedPower,
)
from trivet.contracts.errors import Refused
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def make_meta(kind: str, finalizers: tuple[str, ...], deleting: bool, name: str = "x") -> Meta:
    return Meta(
        id=ResourceId(f"{kind}-1"),
        name=name,
        project="p",
        created_at=NOW,
        finalizers=finalizers,
        deleting_at=NOW if deleting else None,
    )


def make_vm(
    *, held: bool = False, deleting: bool = False, node: str | None = "n1", image: str | None = None
) -> Vm:
    finalizers = ("controller", "node") if held else ("controller",)
    disks = (DiskRequest(size_gib=1),)
    return Vm(
        meta=make_meta("vm", finalizers, deleting, "web"),
        spec=VmSpec(image=image, disks=disks, nics=(NicRequest(network="lan"),)),
        status=VmStatus(node=node),
    )


def has_all(vm: Vm, *, gone: str = "", size_gib: int = 1) -> Vm:
    """`vm` with its parts in its status; `gone` is a disk beside them, that its node let go of."""
    root = VmDisk(name="root", volume="web-root", size_gib=size_gib)
    left = (VmDisk(name=gone, volume=f"web-{gone}", released=True),) if gone else ()
    card = VmNic(port="web-0", network="lan", name="0", security_groups=("default",))
    return vm.with_status(disks=(root, *left), nics=(card,))


def make_node(phase: Phase = Phase.READY, *, deleting: bool = False, promised: bool = True) -> Node:
    promises = {ResourceId("vm-1"): need_of(make_vm())} if promised else {}
    return Node(
        meta=make_meta("node", (), deleting, "n1"),
        spec=NodeSpec(),
        status=NodeStatus(phase=phase, promises=promises),
    )


def make_image(
    phase: Phase = Phase.PENDING,
    *,
    held: bool = False,
    deleting: bool = False,
    node: str | None = None,
    tried: tuple[str, ...] = (),
    observed: int = 1,
) -> Image:
    finalizers = ("controller", "node") if held else ("controller",)
    return Image(
        meta=make_meta("image", finalizers, deleting, "tiny"),
        spec=ImageSpec(source=ImageSourceSpec(file="a.img")),
        status=ImageStatus(phase=phase, node=node, tried=tried, observed_generation=observed),
    )


OK = (Part("volume", "web-root", ready=True),)
SLOW = (Part("volume", "web-root", ready=False, message="is pending"),)
BAD = (Part("volume", "web-root", ready=False, refused=True, message="full"),)
World = vm_plan.World
HERE = make_node()

VM_TABLE: list[tuple[str, Vm, vm_plan.World]] = [
    ("delete-node-gone", make_vm(held=True, deleting=True), World()),
    (
        "delete-node-gone",
        make_vm(held=True, deleting=True),
        World(node=make_node(Phase.UNKNOWN, deleting=True)),
    ),
    (
        "delete-node-silent",
        make_vm(held=True, deleting=True),
        World(node=make_node(Phase.UNKNOWN)),
    ),
    ("delete-node-holds", make_vm(held=True, deleting=True), World(node=HERE)),
    ("delete-parts", make_vm(deleting=True), World(node=HERE)),
    ("delete-parts-wait", make_vm(deleting=True), World(removal="port x: is in use")),
    ("delete", make_vm(deleting=True), World(removed=True)),
    ("image-wait", make_vm(node=None, image="tiny"), World()),
    ("image-wait", make_vm(node=None, image="tiny"), World(image=make_image())),
    ("place", make_vm(node=None), World()),
    ("place", make_vm(node=None, image="tiny"), World(image=make_image(Phase.READY))),
    ("promise", make_vm(), World(node=make_node(promised=False))),
    ("assigned", has_all(make_vm(held=True)), World(node=HERE)),
    ("assigned", has_all(make_vm(held=True, image="tiny")), World(node=HERE)),
    ("make-more", make_vm(held=True), World(node=HERE)),
    ("make-more", has_all(make_vm(held=True), size_gib=2), World(node=HERE)),
    ("more-refused", make_vm(held=True), World(node=HERE, parts=BAD)),
    ("more-wait", make_vm(held=True), World(node=HERE, parts=SLOW)),
    ("remove-some", has_all(make_vm(held=True), gone="old"), World(node=HERE)),
    ("remove-some", has_all(make_vm(), gone="old"), World(node=HERE)),
    ("remove-wait", has_all(make_vm(held=True), gone="old"), World(node=HERE, removal="later")),
    ("make-more", make_vm(held=True), World(node=HERE, removal="later")),
    ("make-parts", make_vm(), World(node=HERE)),
    ("parts-refused", make_vm(), World(node=HERE, parts=BAD + SLOW)),
    ("parts-wait", make_vm(), World(node=HERE, parts=OK + SLOW)),
    ("assign", make_vm(), World(node=HERE, parts=OK)),
]


@pytest.mark.parametrize(("rule", "vm", "world"), VM_TABLE, ids=[r for r, _, _ in VM_TABLE])
def test_vm_table(rule: str, vm: Vm, world: vm_plan.World) -> None:
    assert vm_plan.plan(vm, world).rule == rule


def test_every_vm_rule_is_in_the_table() -> None:
    assert set(vm_plan.RULE_NAMES) == {rule for rule, _, _ in VM_TABLE}


def test_parts_never_go_while_a_node_may_hold_the_vm() -> None:
    nodes = [None, *(make_node(p, deleting=d) for p in Phase for d in (True, False))]
    for held, deleting, node in product((True, False), (True, False), nodes):
        for removed, removal in product((True, False), ("", "rest")):
            world = World(node=node, removed=removed, removal=removal)
            step = vm_plan.plan(make_vm(held=held, deleting=deleting), world)
            if step.step in (vm_plan.Step.REMOVE_PARTS, vm_plan.Step.REMOVE):
                assert deleting
                assert not held
            if step.step is vm_plan.Step.ABANDON_NODE:
                assert node is None or (node.meta.deleting_at and node.status.phase != "ready")
            if step.step is vm_plan.Step.TELL:
                assert step.told is not None
                assert step.told.message
                assert step.look_s is not None


IMAGE_TABLE: list[tuple[str, Image, image_plan.World]] = [
    ("importer-lost", make_image(held=True, node="n1"), image_plan.World()),
    (
        "importer-lost",
        make_image(held=True, node="n1"),
        image_plan.World(node=make_node(Phase.UNKNOWN)),
    ),
    ("importing", make_image(held=True, node="n1"), image_plan.World(node=HERE)),
    ("importing", make_image(held=True, deleting=True), image_plan.World(node=HERE)),
    ("delete-volume", make_image(deleting=True), image_plan.World()),
    ("delete", make_image(deleting=True), image_plan.World(volume_gone=True)),
    ("asked-anew", make_image(Phase.FAILED, observed=0), image_plan.World()),
    ("ended", make_image(Phase.FAILED), image_plan.World(candidates=("n1",))),
    ("ended", make_image(Phase.READY), image_plan.World(candidates=("n1",))),
    ("choose", make_image(), image_plan.World(candidates=("n1",))),
    ("nowhere", make_image(tried=("n1",)), image_plan.World(candidates=("n1",))),
    ("no-node", make_image(), image_plan.World()),
]


@pytest.mark.parametrize(("rule", "image", "world"), IMAGE_TABLE)
def test_image_table(rule: str, image: Image, world: image_plan.World) -> None:
    assert image_plan.plan(image, world).rule == rule


def test_every_image_rule_is_in_the_table() -> None:
    assert set(image_plan.RULE_NAMES) == {rule for rule, _, _ in IMAGE_TABLE}


def test_the_importer_is_the_least_busy_untried_node() -> None:
    world = image_plan.World(candidates=("n3", "n2", "n1"))
    assert image_plan.choose(make_image(), world, []) == "n1"
    assert image_plan.choose(make_image(), world, ["n1", "n2", "n1"]) == "n3"
    assert image_plan.choose(make_image(tried=("n1", "n3")), world, ["n2"]) == "n2"


@pytest.mark.parametrize(("size", "gib"), [(1, 1), (GIB, 1), (GIB + 1, 2), (10 * GIB, 10)])
def test_an_images_volume_holds_its_disk(size: int, gib: int) -> None:
    assert image_plan.volume_request(make_image(), size).spec.size_gib == gib


def test_power_table_is_whole() -> None:
    assert set(TRANSITIONS) == set(product(Verb, WantedPower))
    for (verb, wanted), result in TRANSITIONS.items():
        if result is None:
            with pytest.raises(Refused) as refused:
                after(verb, wanted)
            assert refused.value.hint
        else:
            assert after(verb, wanted) is result
            assert after(verb, result) is result, "an act that is in effect changes nothing"


def test_edits_of_power() -> None:
    assert edited(None, WantedPower.STOPPED) is WantedPower.STOPPED
    assert edited(WantedPower.RUNNING, WantedPower.PAUSED) is WantedPower.PAUSED
    for before in (None, WantedPower.STOPPED):
        with pytest.raises(Refused):
            edited(before, WantedPower.PAUSED)


@pytest.mark.parametrize(
    ("node", "epoch", "assigned", "expected"),
    [
        (None, 0, True, Fate.REPORT),
        ("n1", 1, False, Fate.OURS),
        ("n2", 1, False, Fate.REPORT),
        ("n2", 2, False, Fate.REMOVE),
    ],
)
def test_fate_of_a_domain(node: str | None, epoch: int, assigned: bool, expected: Fate) -> None:
    domain = DomainState(
        id=ResourceId("vm-1"), name="web", generation=1, epoch=1, power=Power.RUNNING
    )
    vm = make_vm(node=node).with_status(epoch=epoch)
    assert fate(domain, vm, "n1", assigned)[0] is expected
    assert fate(domain, None, "n1", assigned=False)[0] is Fate.REPORT
    assert fate(domain, None, "n1", assigned=True)[0] is Fate.REMOVE


def test_silence_and_its_end() -> None:
    node = make_node()
    assert judged(node, 5, 15, NOW) is node
    silent = judged(node, 20, 15, NOW)
    assert silent.status.phase is Phase.UNKNOWN
    assert silent.status.heard_at == NOW - timedelta(seconds=20)
    assert judged(silent, 25, 15, NOW) is silent
    assert judged(silent, 0, 15, NOW).status.phase is Phase.READY


def test_parts_of_a_vm() -> None:
    image = make_image(Phase.READY).with_status(volume="tiny-image")
    (volume,) = volume_requests(make_vm(image="tiny"), Sources(image=image))
    assert (volume.meta.name, volume.owner and volume.owner.id) == ("web-root", "vm-1")
    assert volume.spec.source is not None
    assert volume.spec.source.volume == "tiny-image"
    (port,) = port_requests(make_vm(), "n1")
    assert (port.meta.name, port.spec.node, port.spec.hostname) == ("web-0", "n1", "web")
    check_names("w" * 58, make_vm().spec)
    with pytest.raises(Refused):
        check_names("w" * 59, make_vm().spec)
    with pytest.raises(Refused):
        check_names("w" * 62, VmSpec(nics=(NicRequest(network="lan"),)))
