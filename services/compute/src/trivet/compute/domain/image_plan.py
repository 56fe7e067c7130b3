"""What the cluster's controller does next for one image: a rule table, first match wins.

The controller chooses who imports and tidies up after it; the import itself is one node's
agent's. An image ends as `ready`, or as `failed` and then holds nothing: no volume, no node.
A source that a node can't find (a file lies on one node only) is looked for on the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from trivet.contracts.compute.image import Image
from trivet.contracts.compute.node import Node
from trivet.contracts.endpoint import CreateRequest, NewMeta
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.model import GIB, Name
from trivet.contracts.resource import OwnerRef, Phase
from trivet.contracts.storage.volume import VolumeSpec

CONTROLLER = "controller"
NODE = "node"
WAIT_S = 5.0
NAME_SUFFIX = "-image"
LARGEST_GIB = 65536


class Step(StrEnum):
    """What the controller can be told to do; each may be repeated."""

    ASSIGN = "assign"
    ABANDON = "abandon"
    BEGIN_ANEW = "begin_anew"
    CHOOSE = "choose"
    FAIL = "fail"
    RELEASE = "release"
    REMOVE_VOLUME = "remove_volume"
    REMOVE = "remove"


@dataclass(frozen=True)
class World:
    """The importing node (None: not there), the names of nodes that could import, and whether
    the image's volume is known to be gone."""

    node: Node | None = None
    candidates: tuple[str, ...] = ()
    volume_gone: bool = False


@dataclass(frozen=True)
class ImagePlan:
    """The next step (None: nothing to do), by which rule and why."""

    rule: str
    why: str
    step: Step | None
    look_s: float | None = None


@dataclass(frozen=True)
class _Rule:
    name: str
    why: str
    when: Callable[[Image, World], bool]
    step: Step | None
    look_s: float | None = None


def _held(image: Image) -> bool:
    return NODE in image.meta.finalizers


def _deleting(image: Image) -> bool:
    return image.meta.deleting_at is not None


def _lost(image: Image, world: World) -> bool:
    """An importer writes to a volume and to nothing else: storage's epoch fences it, so that a
    silent one can be left behind."""
    return world.node is None or world.node.status.phase is not Phase.READY


def _ended(image: Image) -> bool:
    return image.status.phase in (Phase.READY, Phase.FAILED)


def _untried(image: Image, world: World) -> tuple[str, ...]:
    return tuple(n for n in world.candidates if n not in image.status.tried)


_RULES: tuple[_Rule, ...] = (
    _Rule(
        "importer-lost",
        "the importing node is not there: it is fenced by a detach and left behind",
        lambda i, w: _held(i) and _lost(i, w),
        Step.ABANDON,
    ),
    _Rule(
        "importing",
        "a node's agent has it: it imports, or lets go of what it began",
        lambda i, w: _held(i),
        Step.ASSIGN,
        WAIT_S,
    ),
    _Rule(
        "delete-volume",
        "nobody imports it: its volume goes",
        lambda i, w: _deleting(i) and not w.volume_gone,
        Step.REMOVE_VOLUME,
        WAIT_S,
    ),
    _Rule("delete", "nothing is left of it", lambda i, w: _deleting(i), Step.REMOVE),
    _Rule(
        "asked-anew",
        "it failed and its spec was changed since: the import is tried again",
        lambda i, w: (
            i.status.phase is Phase.FAILED and i.status.observed_generation < i.meta.generation
        ),
        Step.BEGIN_ANEW,
    ),
    _Rule("ended", "the import has ended", lambda i, w: _ended(i), Step.RELEASE),
    _Rule(
        "choose",
        "nobody imports it yet",
        lambda i, w: bool(_untried(i, w)),
        Step.CHOOSE,
    ),
    _Rule(
        "nowhere",
        "every node that is there was tried, and none could find its source",
        lambda i, w: bool(i.status.tried),
        Step.FAIL,
    ),
    _Rule("no-node", "there is no node that could import it", lambda i, w: True, None, WAIT_S),
)

RULE_NAMES = tuple(r.name for r in _RULES)


def plan(image: Image, world: World) -> ImagePlan:
    """The next step for an image."""
    rule = next(r for r in _RULES if r.when(image, world))
    return ImagePlan(rule.name, rule.why, rule.step, rule.look_s)


def choose(image: Image, world: World, busy: Iterable[str]) -> str:
    """The untried node with the fewest imports; the first by name among equals."""
    count = dict.fromkeys(_untried(image, world), 0)
    for name in busy:
        if name in count:
            count[name] += 1
    return min(count, key=lambda name: (count[name], name))


def volume_name(image: str) -> Name:
    """The name of the volume that holds an image's bytes."""
    return f"{image}{NAME_SUFFIX}"


def holder_of(image: Image) -> str:
    """The image as the holder of its volume while it is written."""
    return f"image/{image.meta.id}"


def volume_request(image: Image, virtual_size_bytes: int) -> CreateRequest[VolumeSpec]:
    """The volume for a disk of that size. Raises `Refused` for one that no volume holds."""
    meta = image.meta
    size_gib = max(1, -(-virtual_size_bytes // GIB))
    if size_gib > LARGEST_GIB:
        hint = f"at most {LARGEST_GIB} GiB"
        raise Refused(INVALID, f"the disk in the image has {size_gib} GiB", hint=hint)
    return CreateRequest[VolumeSpec](
        meta=NewMeta(name=volume_name(meta.name), project=meta.project),
        spec=VolumeSpec(size_gib=size_gib, replicas=image.spec.replicas),
        owner=OwnerRef(kind="image", id=meta.id, project=meta.project, name=meta.name),
    )
