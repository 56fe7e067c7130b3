"""`trivet event follow`: what happens in the cluster, a line an event, for ever."""

from __future__ import annotations

from typing import Annotated

import typer

from trivet.cli.output import Format, visible
from trivet.cli.session import connected
from trivet.client import SeenEvent

app = typer.Typer(no_args_is_help=True)


@app.command("follow")
def follow(
    subject: Annotated[
        str | None, typer.Option(help="Which, as in 'compute.>' or 'compute.vm.started'.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(metavar="SEQ", min=0, help="Begin with this one, not now.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Only those of this project.")
    ] = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="json and yaml: one event a line.")
    ] = Format.TABLE,
) -> None:
    """Follow events as they happen, until interrupted."""
    with connected() as client:
        for seen in client.events(subject, since=since, project=project):
            if output is Format.TABLE:
                print(_line(seen), flush=True)
            else:
                print(seen.event.model_dump_json(), flush=True)


def _line(seen: SeenEvent) -> str:
    event = seen.event
    what = event.type.removeprefix("trivet.").removesuffix(".v1")
    where = f"{event.data.project}/" if event.data.project else ""
    at = f"{event.time:%Y-%m-%dT%H:%M:%S}Z"
    named = visible(f"{where}{event.data.name}")
    return f"{seen.seq:>8}  {at}  {what:28} {named}  ({event.data.phase})"
