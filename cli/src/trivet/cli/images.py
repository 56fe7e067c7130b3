"""`trivet image import` and `trivet image build-tiny`: images from this machine's own files.

The API takes no bulk data: a local file is copied into the node's import folder, which only root
on that node can write to, and imported from there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from trivet.cli.output import Format, print_model
from trivet.cli.session import Output, Project, WaitOption, connected, in_project
from trivet.cli.waiting import DEFAULT_WAIT_S, Wait
from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.image import Image
from trivet.contracts.errors import NAME_TAKEN, Fatal, Refused, code
from trivet.host import tiny_image
from trivet.host.layout import Layout
from trivet.runtime.settings import Settings, load_settings

CANNOT_IMPORT = code("image.cannot_import", 400, "The file can't be imported from here")
TINY_WORK = "tiny-image"
app = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command("import")
def import_(
    name: Name,
    source: Annotated[str, typer.Argument(metavar="FILE|URL")],
    project: Project = None,
    replicas: Annotated[int, typer.Option(min=1, max=3, help="Copies to keep.")] = 1,
    sha256: Annotated[str | None, typer.Option(help="What the bytes must amount to.")] = None,
    wait_s: WaitOption = None,
    output: Output = Format.TABLE,
) -> None:
    """Make an image of a local file (on a node, as root) or of what is at a URL."""
    spec: dict[str, object] = {"replicas": replicas}
    if sha256:
        spec["sha256"] = sha256
    if re.match(r"https?://", source):
        spec["source"] = {"url": source}
        _create(name, spec, project, wait_s, output)
        return
    settings = _node_settings()
    _offer_and_create(name, Path(source), settings, spec, project, wait_s, output)


@app.command("build-tiny")
def build_tiny(
    name: Annotated[str, typer.Argument(metavar="[NAME]")] = "tiny",
    project: Project = None,
    wait_s: WaitOption = DEFAULT_WAIT_S,
    output: Output = Format.TABLE,
) -> None:
    """Build the small test guest from the distribution's packages, and make an image of it."""
    settings = _node_settings()
    _require_root(settings)
    with tempfile.TemporaryDirectory(prefix="trivet-tiny-") as folder:
        try:
            work = settings.state_dir / TINY_WORK
            made = tiny_image.build(Path(folder) / "tiny.raw", work, _say)
        except tiny_image.BuildFailed as error:
            raise Fatal(CANNOT_IMPORT, f"the tiny image was not built: {error}") from error
        _offer_and_create(name, made, settings, {}, project, wait_s, output, again=True)


def _node_settings() -> Settings:
    """The settings of the node on this machine: of the instance that `TRIVET_ROOT` names."""
    layout = Layout(Path(os.path.abspath(os.environ.get("TRIVET_ROOT", "/"))))
    return load_settings({"TRIVET_SETTINGS": str(layout.settings_file), **os.environ})


def _offer_and_create(
    name: str,
    path: Path,
    settings: Settings,
    spec: dict[str, object],
    project: str | None,
    wait_s: float | None,
    output: Format,
    *,
    again: bool = False,
) -> None:
    """Put a file into the import folder and make an image of it; once the image is there the
    file is taken out again. `again`: an image of that name and content is success."""
    _require_root(settings)
    if not path.is_file():
        raise Refused(CANNOT_IMPORT, f"{path} is not a file")
    offered = _offer(path, settings.compute.import_dir)
    try:
        spec = {"sha256": _sha256(offered), **spec, "source": {"file": offered.name}}
        # The node reads the file while it imports, so this waits in any case.
        _create(name, spec, project, wait_s or DEFAULT_WAIT_S, output, again=again)
    finally:
        offered.unlink(missing_ok=True)


def _create(
    name: str,
    spec: dict[str, object],
    project: str | None,
    wait_s: float | None,
    output: Format,
    *,
    again: bool = False,
) -> None:
    with connected() as client:
        fields = {"spec": spec, **in_project(project)}
        try:
            request = build_request(IMAGES.create, name, fields, client.project)
            image: Any = client.call(IMAGES.create, request)
        except Refused as error:
            if error.code is not NAME_TAKEN or not again:
                raise
            image = _same_or_raise(client, name, project, spec, error)
        if wait_s is not None:
            image = Wait(client, IMAGES.get, image, wait_s).settled()
        print_model(image, output)


def _same_or_raise(
    client: Client, name: str, project: str | None, spec: dict[str, object], error: Refused
) -> Image:
    """The image that is there already, if it is of the same bytes."""
    request = build_request(IMAGES.get, name, in_project(project), client.project)
    there: Image = client.call(IMAGES.get, request)
    if there.spec.sha256 != spec["sha256"] or there.status.phase == "failed":
        hint = f"`trivet image delete {name}` first, or give another name"
        raise Refused(NAME_TAKEN, error.detail, hint=hint) from error
    return there


def _offer(path: Path, folder: Path) -> Path:
    """A copy of the file in the import folder, under a name of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", path.name).lstrip("._-")[:100] or "image"
    target = folder / f"{secrets.token_hex(4)}-{stem}"
    _say(f"copying {path.name} into the import folder")
    try:
        shutil.copyfile(path, target)
        target.chmod(0o644)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise Fatal(CANNOT_IMPORT, f"{path} can't be copied: {error.strerror}") from error
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_root(settings: Settings) -> None:
    if os.geteuid() != 0 and not os.access(settings.compute.import_dir, os.W_OK):
        detail = "a local file is imported on a node, as root"
        raise Refused(CANNOT_IMPORT, detail, hint="run it with sudo there, or give a URL")


_BEGUN = time.monotonic()


def _say(text: str) -> None:
    print(f"==> [{time.monotonic() - _BEGUN:5.1f} s] {text}", file=sys.stderr, flush=True)
