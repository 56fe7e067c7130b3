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

from trivet.cli import apply, events, images
from trivet.cli.generated import add_commands
from trivet.cli.output import Format, print_value
from trivet.cli.session import Output, connected
from trivet.cli.waiting import DEFAULT_WAIT_S
from trivet.contracts.endpoint import SERVICES, declared
from trivet.contracts.errors import TrivetError
from trivet.host import commands

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
INTERRUPTED = 130


def show_version(output: Output = Format.TABLE) -> None:
    """The versions of this command and of the gateway it speaks to."""
    told: dict[str, object] = {"client": version("trivet-cli")}
    try:
        with connected() as client:
            told["gateway"] = client.get_json("/v1/version")["version"]
    except TrivetError as error:
        told["gateway"] = f"not reachable: {error.detail}"
    print_value(told, output)


def health(output: Output = Format.TABLE) -> None:
    """Whether each service of the cluster answers."""
    with connected() as client:
        print_value(client.get_json("/v1/health"), output)


def build_app() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="trivet",
        help="One private cloud of a few Linux servers.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    commands.register(app)
    app.command("apply")(apply.apply)
    app.command("version")(show_version)
    app.command("health")(health)
    app.add_typer(events.app, name="event", help="What happens in the cluster.")
    endpoints = [e for service in SERVICES for e in declared(service)]
    add_commands(app, endpoints, {"image": images.app})
    return app


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
        result = build_app()(with_wait(arguments), prog_name="trivet", standalone_mode=False)
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
