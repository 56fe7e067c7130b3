"""The duty of the leader towards images: who imports each, and tidying up after it."""

from __future__ import annotations

import logging

from trivet.compute.domain.image_plan import (
    CONTROLLER,
    NODE,
    Step,
    World,
    choose,
    holder_of,
    plan,
    volume_name,
)
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.node import Node
from trivet.contracts.endpoint import DeleteRequest, GetRequest
from trivet.contracts.errors import NOT_FOUND, Refused, TrivetError
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

STEPS_BOUND = 10


class ImageController:
    """Keeps images imported, or failed with a reason."""

    def __init__(
        self, service: Service, images: Collection[Image], nodes: Collection[Node]
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._images = images
        self._nodes = nodes
        self._reconciler = Reconciler(
            "image controller", self.reconcile, clock=self._runtime.clock, keys=images.keys
        )
        images.on_change(self._reconciler.wake)
        nodes.on_change(self._node_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _node_changed(self, key: str) -> None:
        for image in self._images.list():
            if image.status.phase is Phase.PENDING:
                self._reconciler.wake(self._images.key_of(image))

    async def reconcile(self, key: str) -> float | None:
        """Bring one image as far as it goes now; returns when to look again (seconds)."""
        volume_gone = False
        for _ in range(STEPS_BOUND):
            image = await self._images.fresh(key)
            if image is None:
                return None
            world = self._look(image, volume_gone)
            step = plan(image, world)
            if step.step is None:
                return step.look_s
            if step.step is Step.REMOVE_VOLUME:
                volume_gone = await self._remove_volume(image)
                if not volume_gone:
                    return step.look_s
                continue
            await self._do(image, step.step, world)
            if step.step in (Step.ASSIGN, Step.RELEASE, Step.REMOVE, Step.FAIL):
                return step.look_s
        return 1.0

    def _look(self, image: Image, volume_gone: bool) -> World:
        return World(
            node=self._nodes.get(image.status.node) if image.status.node else None,
            candidates=tuple(
                n.meta.name
                for n in self._nodes.list()
                if n.status.phase is Phase.READY and not n.spec.maintenance
            ),
            volume_gone=volume_gone,
        )

    async def _do(self, image: Image, step: Step, world: World) -> None:
        match step:
            case Step.CHOOSE:
                await self._choose(image, world)
            case Step.ASSIGN:
                await self._assign(image)
            case Step.ABANDON:
                await self._abandon(image)
            case Step.BEGIN_ANEW:
                await self._images.mutate(
                    self._images.key_of(image),
                    lambda i: i.with_status(
                        phase=Phase.PENDING, tried=(), node=None, progress_pct=0
                    ),
                )
            case Step.FAIL:
                await self._fail(image)
            case Step.RELEASE:
                await self._release(image)
            case _:
                await self._remove(image)

    async def _choose(self, image: Image, world: World) -> None:
        busy = [i.status.node for i in self._images.list() if NODE in i.meta.finalizers]
        node = choose(image, world, [n for n in busy if n is not None])

        def give(current: Image) -> Image:
            if NODE in current.meta.finalizers or current.meta.deleting_at is not None:
                return current
            given = current.with_status(node=node, phase=Phase.PENDING, progress_pct=0)
            return given.with_meta(finalizers=(*current.meta.finalizers, NODE))

        await self._images.mutate(self._images.key_of(image), give)

    async def _assign(self, image: Image) -> None:
        assert image.status.node is not None
        await self._assignments.assign(
            image.status.node,
            "image",
            image.meta.id,
            self._images.key_of(image),
            image.meta.generation,
        )

    async def _abandon(self, image: Image) -> None:
        await self._release(image)
        request = DetachRequest(
            project=image.meta.project,
            name=volume_name(image.meta.name),
            holder=holder_of(image),
        )
        try:
            await self._runtime.client.call(DETACH, request)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise
        lost = image.status.node

        def abandon(current: Image) -> Image:
            if current.status.node != lost:
                return current
            finalizers = tuple(f for f in current.meta.finalizers if f != NODE)
            return current.with_status(node=None).with_meta(finalizers=finalizers)

        await self._images.mutate(self._images.key_of(image), abandon)

    async def _fail(self, image: Image) -> None:
        tried = ", ".join(image.status.tried)
        message = f"no node has the file {image.spec.source.file} (looked on {tried})"
        await self._tell(image, "NotFound", message, Phase.FAILED)

    async def _release(self, image: Image) -> None:
        if image.status.node is not None:
            await self._assignments.release(image.status.node, "image", image.meta.id)

    async def _remove_volume(self, image: Image) -> bool:
        """Delete the image's volume; whether it is gone. Where it can't go, the image says why."""
        project, name = image.meta.project, volume_name(image.meta.name)
        try:
            volume: Volume = await self._runtime.client.call(
                VOLUMES.get, GetRequest(project=project, name=name)
            )
            if volume.meta.owner is None or volume.meta.owner.id != image.meta.id:
                return True
            await self._runtime.client.call(
                VOLUMES.delete, DeleteRequest(project=project, name=name)
            )
            await self._runtime.client.call(VOLUMES.get, GetRequest(project=project, name=name))
        except Refused as error:
            if error.code is NOT_FOUND:
                return True
            await self._tell(image, "VolumeRemains", error.detail, Phase.DELETING, "Deletable")
            return False
        except TrivetError as error:
            await self._tell(image, "VolumeRemains", error.detail, Phase.DELETING, "Deletable")
            raise
        return False

    async def _tell(
        self, image: Image, reason: str, message: str, phase: Phase, type_: str = "Imported"
    ) -> None:
        now = self._runtime.clock.now()
        told = Condition(type=type_, status="false", reason=reason, message=message)

        def change(current: Image) -> Image:
            status = current.with_status(
                phase=phase, observed_generation=current.meta.generation
            ).status
            return current.model_copy(update={"status": status.with_condition(told, now)})

        await self._images.mutate(self._images.key_of(image), change)

    async def _remove(self, image: Image) -> None:
        await self._release(image)

        def release(current: Image) -> Image:
            finalizers = tuple(f for f in current.meta.finalizers if f != CONTROLLER)
            return current.with_meta(finalizers=finalizers)

        gone = await self._images.mutate(self._images.key_of(image), release)
        if gone is not None and not gone.meta.finalizers:
            await self._images.remove(gone)
