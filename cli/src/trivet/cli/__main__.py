"""The `trivet` command: every operation of the API, and what sets a node up.

Exit codes: 0 done, 1 refused or failed (one line on stderr, with the code and what to do), 2 a
mistake on the command line.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import version

import typer

from trivet.cli import apply, events
from trivet.cli.generated import add_commands
from trivet.cli.login import login
from trivet.cli.output import Format, print_value
from trivet.cli.session import Output, connected
from trivet.cli.waiting import DEFAULT_WAIT_S
from trivet.contracts.endpoint import SERVICES, declared
from trivet.contracts.errors import TrivetError

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
INTERRUPTED = 130


def show_version(output: Output = Format.TABLE) -> None:
    """The versions of this command and of the gateway it speaks to."""
    told: dict[str, object] = {"client": version("trivet-cli")}
    try:
        with connected() as client:
            told["gateway"] = client.version()
    except TrivetError as error:
        told["gateway"] = f"not reachable: {error.detail}"
    print_value(told, output)


def health(output: Output = Format.TABLE) -> None:
    """Whether each service of the cluster answers; exit 1 if one does not."""
    with connected() as client:
        told = client.health()
    print_value(told, output)
    if told.get("status") != "ok":
        raise typer.Exit(1)


def build_app(first: str | None = None) -> typer.Typer:
    """The command line: all of it, or what a command that begins with `first` needs.

    Commands that act through the API don't load those that act on this machine, which take
    half a second to import.
    """
    endpoints = [e for service in SERVICES for e in declared(service)]
    app = typer.Typer(
        name="trivet",
        help="One private cloud of a few Linux servers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.command("apply")(apply.apply)
    app.command("login")(login)
    app.command("version")(show_version)
    app.command("health")(health)
    app.add_typer(events.app, name="event", help="What happens in the cluster.")
    if first in {command.name for command in app.registered_commands} | {"event"}:
        return app
    if any(first == endpoint.noun for endpoint in endpoints):
        add_commands(app, [e for e in endpoints if e.noun == first], _written_by_hand(first))
        return app
    from trivet.host import commands

    commands.register(app)
    add_commands(app, endpoints, _written_by_hand("image") | _written_by_hand("vm"))
    return app


def _written_by_hand(noun: str | None) -> dict[str, typer.Typer]:
    """The group of a noun that has commands which no declaration makes."""
    match noun:
        case "image":
            from trivet.cli import images

            return {"image": images.app}
        case "vm":
            from trivet.cli import consoles

            return {"vm": consoles.app}
    return {}


def with_wait(arguments: Sequence[str]) -> list[str]:
    """The arguments with a number after every `--wait`, which may stand alone."""
    found: list[str] = []
    for number, word in enumerate(arguments):
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        alone = word == "--wait" and not _NUMBER.fullmatch(following)
        found.append(f"--wait={DEFAULT_WAIT_S:g}" if alone else word)
        if word == "--":
            return [*found, *arguments[number + 1 :]]
    return found


def one_line(error: TrivetError) -> str:
    """An error as the one line on stderr: code, what, where, what to do."""
    parts = [f"trivet: {error.code.value}: {error.detail}"]
    for field in error.errors[:10]:
        accepted = f" {field.accepted}" if field.accepted else ""
        parts.append(f"{field.where}: {field.message}{accepted}")
    line = "; ".join(parts) + (f" ({error.hint})" if error.hint else "")
    return " ".join(line.split())


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    try:
        app = build_app(arguments[0] if arguments else None)
        result = app(with_wait(arguments), prog_name="trivet", standalone_mode=False)
    except typer.TyperException as error:
        print(f"trivet: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except TrivetError as error:
        print(one_line(error), file=sys.stderr)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # Whoever read has enough; nothing more can be said there, nor at exit.
        sys.stdout = None
        return 0
    return result if isinstance(result, int) else 0


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
