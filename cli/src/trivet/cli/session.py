"""What commands share: the client they call, and how mistakes on the command line are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from trivet.cli.output import Format
from trivet.client import Client, load_config

Output = Annotated[
    Format, typer.Option("--output", "-o", help="For people, or for programs.", show_default=True)
]
Project = Annotated[
    str | None, typer.Option("--project", "-p", help="The project; else the configuration's.")
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        "--wait", metavar="[SECONDS]", min=0, help="Wait until done (300 s, if not said)."
    ),
]


@contextmanager
def connected() -> Iterator[Client]:
    """A client as the configuration says."""
    # A person repeats a command; one that hangs says nothing.
    with Client.of(load_config(), retry_s=0) as client:
        yield client


@contextmanager
def usage() -> Iterator[None]:
    """Tell a `ValueError` as a mistake on the command line (exit 2)."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def in_project(project: str | None) -> dict[str, Any]:
    """The project as a field of a request, where one was named."""
    return {} if project is None else {"project": project}


Command = Callable[..., None]
