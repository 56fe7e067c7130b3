"""What commands that act on this machine tell their caller: progress, and errors in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from trivet.contracts.errors import TrivetError


def progress() -> Callable[[str], None]:
    """Says what is being done, with the seconds since now."""
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"==> [{time.monotonic() - begun:5.1f} s] {what}", file=sys.stderr, flush=True)

    return say


@contextmanager
def told() -> Iterator[None]:
    """Turn errors into one line and exit code 1."""
    try:
        yield
    except TrivetError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"trivet: {error.detail}{hint}", file=sys.stderr)
        raise typer.Exit(1) from error
