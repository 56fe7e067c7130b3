"""Imports images that are assigned to this node: fetch, look, make a volume, write, let go.

Each step finds what an earlier try left, so an import that was cut is begun again and ends
the same. One that is refused holds nothing: its volume and its files go before it says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from trivet.compute.domain.image_plan import NODE, holder_of, volume_name, volume_request
from trivet.compute.node.progress import ProgressTeller
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.image_source import (
    ImageFacts,
    ImageSource,
    ImageWriter,
    OnceSource,
    Progress,
)
from trivet.contracts.endpoint import DeleteRequest, GetRequest
from trivet.contracts.errors import (
    INVALID,
    NAME_TAKEN,
    NOT_FOUND,
    NOT_SUPPORTED,
    UNAVAILABLE,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.model import NodeName
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.volume import Attachment, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

WORKERS = 2
VOLUME_WAIT_S = 5.0
FOREVER_S = 86400.0 * 365


class NotHereError(Refused):
    """The source is a file, and not on this node: another one may have it."""


class ImageAgent:
    """Imports images on this node."""

    def __init__(
        self,
        service: Service,
        images: Collection[Image],
        sources: Sequence[ImageSource],
        writers: Sequence[ImageWriter],
        folder: Path,
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._images = images
        self._sources = sources
        self._writers = writers
        self._folder = folder
        self._assigned = assigned = service.assigned()
        self._reconciler = Reconciler(
            "image agent",
            self.reconcile,
            clock=self._runtime.clock,
            keys=lambda: assigned.keys("image"),
            bound=WORKERS,
            resync_s=self._runtime.settings.compute.look_s,
        )
        assigned.on_change(lambda kind, key: self._wake(key) if kind == "image" else None)
        images.on_change(self._wake)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _wake(self, key: str) -> None:
        image = self._images.by_key(key)
        if image is not None and self._is_ours(image):
            self._reconciler.wake(key)

    async def _drop_pointers(self, key: str, there: Image | None) -> None:
        """Drop this node's pointers to images of that key that the store positively lacks."""
        for pointer in self._assigned.pointers("image"):
            if pointer.key == key and (there is None or there.meta.id != pointer.id):
                log.warning("a pointer to %s, which does not exist, is dropped", pointer.id)
                await self._assignments.release(self._runtime.node, "image", pointer.id)

    def _is_ours(self, image: Image) -> bool:
        return image.status.node == self._runtime.node and NODE in image.meta.finalizers

    async def reconcile(self, key: str) -> float | None:
        """Import the image of `key`, or let go of it."""
        image = await self._images.fresh(key)
        await self._drop_pointers(key, image)
        if image is None or not self._is_ours(image):
            return None
        if image.meta.deleting_at is not None:
            await self._clean(image, remove_volume=False)
            await self._write(image, lambda i: i)
            return None
        try:
            await self._while_wanted(image)
        except Retry as error:
            await self._tell(image, error)
            raise
        except TrivetError as error:
            await self._failed(image, error)
        return None

    async def _while_wanted(self, image: Image) -> None:
        """Import, and stop at once where the image is deleted or given to another node."""
        key = self._images.key_of(image)
        work = asyncio.create_task(self._import(image))
        unwanted = asyncio.create_task(
            self._images.wait_for(
                key, lambda i: i is None or i.meta.deleting_at is not None, FOREVER_S
            )
        )
        try:
            await asyncio.wait({work, unwanted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            unwanted.cancel()
            if not work.done():
                work.cancel()
            await asyncio.gather(work, unwanted, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _import(self, image: Image) -> None:
        async with ProgressTeller(self._images, image, self._runtime.clock) as progress:
            into = self._folder / image.meta.id
            into.mkdir(parents=True, exist_ok=True)
            source = self._source_for(image)
            path = await self._fetch(source, image, into, progress.part(0, 50))
            writer, facts = await self._look(path)
            if image.spec.sha256 is not None and facts.sha256 != image.spec.sha256:
                raise Refused(
                    INVALID,
                    f"its bytes have the digest {facts.sha256}, not {image.spec.sha256}",
                    hint="get the file again, or correct spec.sha256",
                )
            volume = await self._volume(image, facts.virtual_size_bytes)
            attachment = await self._attach(image, volume)
            assert attachment.socket is not None
            assert attachment.export is not None
            await writer.write(
                path, facts.format, attachment.socket, attachment.export, progress.part(50, 99)
            )
        await self._clean(image, remove_volume=False)
        await self._write(image, lambda i: _ready(i, volume, facts))

    async def _fetch(
        self, source: ImageSource, image: Image, into: Path, progress: Progress
    ) -> Path:
        try:
            return await source.fetch(image.spec.source, into, progress)
        except Refused as error:
            if isinstance(error, NotHereError):
                raise NotHereError(NOT_FOUND, error.detail, hint=error.hint) from error
            raise

    def _source_for(self, image: Image) -> ImageSource:
        for source in self._sources:
            if source.accepts(image.spec.source):
                return source
        raise Refused(
            NOT_SUPPORTED,
            f"no image source on {self._runtime.node} takes such a source",
            hint="enabled: " + (", ".join(s.name for s in self._sources) or "none"),
        )

    async def _look(self, path: Path) -> tuple[ImageWriter, ImageFacts]:
        if not self._writers:
            raise Refused(NOT_SUPPORTED, f"no image writer can work on {self._runtime.node}")
        return self._writers[0], await self._writers[0].inspect(path)

    async def _volume(self, image: Image, virtual_size_bytes: int) -> Volume:
        """The image's volume, made if it is not there, once it is ready."""
        request = volume_request(image, virtual_size_bytes)
        try:
            await self._runtime.client.call(VOLUMES.create, request)
        except Refused as error:
            if error.code is not NAME_TAKEN:
                raise
        asked = GetRequest(
            project=image.meta.project, name=request.meta.name, settle_s=VOLUME_WAIT_S
        )
        volume: Volume = await self._runtime.client.call(VOLUMES.get, asked)
        owner = volume.meta.owner
        if owner is None or owner.id != image.meta.id:
            raise Refused(NAME_TAKEN, f"there is another volume {volume.meta.name}")
        said = "; ".join(c.message for c in volume.status.conditions if c.status != "true")
        if volume.status.phase is Phase.FAILED:
            raise Refused(INVALID, f"its volume failed: {said or 'see the volume'}")
        if volume.status.phase not in (Phase.READY, Phase.DEGRADED):
            raise Retry(UNAVAILABLE, f"waits for its volume: {said}", retry_after_s=1)
        return volume

    async def _attach(self, image: Image, volume: Volume) -> Attachment:
        attachment = await self._runtime.client.call(
            ATTACH,
            AttachRequest(
                project=image.meta.project,
                name=volume.meta.name,
                holder=holder_of(image),
                node=NodeName(self._runtime.node),
            ),
        )
        if attachment.socket is None or attachment.export is None:
            raise Retry(UNAVAILABLE, "its volume has no socket here yet", retry_after_s=1)
        return attachment

    # --- ends -------------------------------------------------------------------------------

    async def _failed(self, image: Image, error: TrivetError) -> None:
        """Tell why it can't be, holding nothing; a source that is elsewhere is looked for there."""
        log.warning("image %s can't be imported: %s", image.meta.name, error)
        await self._clean(image, remove_volume=True)
        node = self._runtime.node
        if error.code is NOT_FOUND and image.spec.source.file is not None:
            await self._write(
                image,
                lambda i: i.with_status(tried=tuple(sorted({*i.status.tried, node})), node=None),
            )
            return
        now = self._runtime.clock.now()
        told = Condition(
            type="Imported", status="false", reason="Refused", message=f"{node}: {error.detail}"
        )

        def fail(current: Image) -> Image:
            status = current.with_status(
                phase=Phase.FAILED, volume=None, observed_generation=image.meta.generation
            ).status
            return current.model_copy(update={"status": status.with_condition(told, now)})

        await self._write(image, fail)

    async def _tell(self, image: Image, error: TrivetError) -> None:
        now = self._runtime.clock.now()
        told = Condition(type="Imported", status="false", reason="Waits", message=error.detail)
        await self._images.mutate(
            self._images.key_of(image),
            lambda i: i.model_copy(update={"status": i.status.with_condition(told, now)}),
        )

    async def _clean(self, image: Image, *, remove_volume: bool) -> None:
        """Let go of the volume, of the fetched files, and of what was there for this import."""
        project, name = image.meta.project, volume_name(image.meta.name)
        client = self._runtime.client
        with _absent_is_fine():
            await client.call(
                DETACH, DetachRequest(project=project, name=name, holder=holder_of(image))
            )
        if remove_volume:
            with _absent_is_fine():
                volume: Volume = await client.call(
                    VOLUMES.get, GetRequest(project=project, name=name)
                )
                owner = volume.meta.owner
                if owner is not None and owner.id == image.meta.id:
                    await client.call(VOLUMES.delete, DeleteRequest(project=project, name=name))
        await asyncio.to_thread(shutil.rmtree, self._folder / image.meta.id, ignore_errors=True)
        for source in self._sources:
            if source.accepts(image.spec.source) and isinstance(source, OnceSource):
                await source.forget(image.spec.source)

    async def _write(self, image: Image, change: Callable[[Image], Image]) -> None:
        """Write the end of this node's work on the image, and let go of it, in one."""

        def let_go(current: Image) -> Image:
            if current.status.node != self._runtime.node or current.meta.id != image.meta.id:
                return current
            changed = change(current) if current.meta.deleting_at is None else current
            finalizers = tuple(f for f in changed.meta.finalizers if f != NODE)
            return changed.with_meta(finalizers=finalizers)

        await self._images.mutate(self._images.key_of(image), let_go)
        await self._assignments.release(self._runtime.node, "image", image.meta.id)


def _ready(image: Image, volume: Volume, facts: ImageFacts) -> Image:
    done = Condition(type="Imported", status="true", reason="Done")
    return image.with_status(
        phase=Phase.READY,
        volume=volume.meta.name,
        virtual_size_bytes=facts.virtual_size_bytes,
        format=facts.format,
        sha256=facts.sha256,
        progress_pct=100,
        observed_generation=image.meta.generation,
        conditions=(*(c for c in image.status.conditions if c.type != "Imported"), done),
    )


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except Refused as error:
        if error.code is not NOT_FOUND:
            raise
