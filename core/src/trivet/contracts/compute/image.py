"""Image: a disk from which VMs are made. Its bytes are a volume of the storage service."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status

ONCE_PREFIX = "once-"
"""A file of the import folder whose name begins so is there for one import: when that has ended,
well or badly, the node that read it removes it."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ImageSourceSpec(Model):
    """Where the bytes come from: exactly one of a file in the import folder of the node
    that imports, or an http(s) URL. Format is found by looking (raw or qcow2)."""

    file: str | None = Field(default=None, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    url: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[!-~]+$")

    @model_validator(mode="after")
    def _one(self) -> ImageSourceSpec:
        if (self.file is None) == (self.url is None):
            raise ValueError("exactly one of file, url")
        return self


class ImageSpec(Model):
    """`sha256` is of the source's bytes, checked before the image is ready."""

    source: ImageSourceSpec
    sha256: Sha256 | None = None
    replicas: int = Field(default=1, ge=1, le=3)
    os: str = Field(default="linux", max_length=63)


class ImageStatus(Status):
    """`progress_pct` while importing, by `node`; `tried` are nodes that could not find the
    source. `volume` names the volume (same project) with the bytes."""

    volume: str | None = None
    virtual_size_bytes: int | None = None
    format: str | None = None
    sha256: str | None = None
    progress_pct: int = 0
    node: str | None = None
    tried: tuple[str, ...] = ()


class Image(Resource[ImageSpec, ImageStatus]):
    """A disk image to make VMs from."""

    kind: str = "Image"


IMAGE = Kind(Image, "image", "images", "compute", Scope.PROJECT, "A disk from which VMs are made")
