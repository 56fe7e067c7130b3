"""`trivet image import` and `trivet image build-tiny`: images from this machine's own files.

The API takes no bulk data: a local file is copied into the node's import folder, which only root
on that node can write to, and imported from there. The copy has a name that says it is for one
import, so that the node removes it when that has ended: also when nobody waits any more.
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
from trivet.contracts.compute.image import ONCE_PREFIX, Image
from trivet.contracts.errors import NAME_TAKEN, TIMEOUT, Fatal, Refused, TrivetError, code
from trivet.contracts.resource import Phase
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
    wait_s: WaitOption = DEFAULT_WAIT_S,
    output: Output = Format.TABLE,
) -> None:
    """Make an image of a local file (on a node, as root) or of what is at a URL."""
    spec: dict[str, Any] = {"replicas": replicas}
    if sha256:
        spec["sha256"] = sha256
    if re.match(r"https?://", source):
        spec["source"] = {"url": source}
        with connected() as client:
            _show_ready(client, _ask(client, name, spec, project), wait_s, output)
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
    spec: dict[str, Any],
    project: str | None,
    wait_s: float | None,
    output: Format,
    *,
    again: bool = False,
) -> None:
    """Put a copy of a file into the import folder and make an image of it. `again`: an image of
    that name and content is success, and one that failed is imported anew."""
    _require_root(settings)
    if not path.is_file():
        raise Refused(CANNOT_IMPORT, f"{path} is not a file")
    offered = _offer(path, settings.compute.import_dir)
    with connected() as client:
        try:
            spec = {"sha256": _sha256(offered), **spec, "source": {"file": offered.name}}
            image = _ask(client, name, spec, project, again=again)
        except BaseException as error:
            # No answer in time is no refusal: a node may be reading the copy.
            if not isinstance(error, TrivetError) or error.code is not TIMEOUT:
                offered.unlink(missing_ok=True)
            raise
        if image.spec.source.file != offered.name:
            offered.unlink(missing_ok=True)
        _show_ready(client, image, wait_s, output)


def _ask(
    client: Client, name: str, spec: dict[str, Any], project: str | None, *, again: bool = False
) -> Image:
    """The image as it was made, or with `again` the one that does as well."""
    fields = {"spec": spec, **in_project(project)}
    try:
        made: Image = client.call(
            IMAGES.create, build_request(IMAGES.create, name, fields, client.project)
        )
    except Refused as error:
        if error.code is not NAME_TAKEN or not again:
            raise
        return _again(client, name, project, spec, error)
    return made


def _again(
    client: Client, name: str, project: str | None, spec: dict[str, Any], error: Refused
) -> Image:
    """The image that is there already, if it is of the same bytes; one that failed, from now on
    with `spec`."""
    request = build_request(IMAGES.get, name, in_project(project), client.project)
    there: Image = client.call(IMAGES.get, request)
    if there.settled() and there.status.phase is Phase.FAILED:
        source = {"file": None, "url": None, **spec["source"]}
        fields = {"spec": {**spec, "source": source}, **in_project(project)}
        edited: Image = client.call(
            IMAGES.edit, build_request(IMAGES.edit, name, fields, client.project)
        )
        return edited
    if there.spec.sha256 != spec["sha256"]:
        hint = f"`trivet image delete {name}` first, or give another name"
        raise Refused(NAME_TAKEN, error.detail, hint=hint) from error
    return there


def _show_ready(client: Client, image: Image, wait_s: float | None, output: Format) -> None:
    """Show the image once it is ready, or (0 s) as it is; raises where it failed."""
    print_model(Wait(client, IMAGES.get, image, wait_s).settled() if wait_s else image, output)


def _offer(path: Path, folder: Path) -> Path:
    """A copy of the file in the import folder, under a name of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", path.name).lstrip("._-")[:100] or "image"
    target = folder / f"{ONCE_PREFIX}{secrets.token_hex(8)}-{stem}"
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
