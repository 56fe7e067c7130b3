"""The commands that set a node up, look after it, and take it away.

They act on this machine, not through the API; everything else of the command line is a client.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from trivet.host import doctor as doctor_module
from trivet.host import lab_commands, locks, setup, takeaway, testing
from trivet.host.caller import client_file
from trivet.host.checkout import checkout
from trivet.host.layout import Layout
from trivet.host.progress import progress, told
from trivet.host.turns import turn

Root = Annotated[
    Path,
    typer.Option(
        envvar="TRIVET_ROOT",
        help="Keep everything of the instance under this folder (for tests).",
    ),
]
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}

NEXT = """\
Trivet is ready. Next:
  ./trivet image build-tiny
  ./trivet vm create web --image tiny --network default --disk 1GiB --wait
  ./trivet vm show web
  ./trivet doctor               # what works here, and why what doesn't
  sudo ./trivet down            # stops it; data stays (--purge removes everything)"""


def register(app: typer.Typer) -> None:
    """Mount the commands on the root of the command line."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("doctor")(doctor)
    app.add_typer(lab_commands.app, name="lab", help="A cluster of several nodes to try.")
    app.command("bench", context_settings=EXTRA, add_help_option=False)(bench)
    app.command("test", context_settings=EXTRA)(run_tests)
    app.command("lint")(lint)
    app.command("lock")(lock)


def up(root: Root = Path("/")) -> None:
    """Start a one-node cluster on this machine, installing what is missing."""
    with told():
        takeaway.require_root("up")
        layout, say = _layout(root), progress()
        layout.root.mkdir(parents=True, exist_ok=True)
        with turn(layout, say):
            setup.up(layout, os.environ, say)
        print(NEXT)
        if not layout.ordinary:
            print(f"\nexport TRIVET_CONFIG={client_file(layout, os.environ).path}")


def down(
    root: Root = Path("/"),
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove data, settings, and every other trace.")
    ] = False,
) -> None:
    """Stop the cluster's node on this machine; VMs and data stay."""
    with told():
        takeaway.require_root("down")
        layout, say = _layout(root), progress()
        with turn(layout, say):
            (takeaway.purge if purge else takeaway.down)(layout, say)
        if purge:
            print("Trivet was removed from this machine.")
        else:
            print("Trivet is stopped; `sudo ./trivet up` starts it again.")


def doctor(
    root: Root = Path("/"),
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Say what works on this machine, and why what doesn't; exit 1 if something is wrong."""
    with told():
        findings = asyncio.run(doctor_module.examine(_layout(root)))
        if output == "json":
            print(json.dumps([asdict(finding) for finding in findings], indent=1))
        else:
            _tell_findings(findings)
        if doctor_module.wrong(findings):
            raise typer.Exit(1)


def _tell_findings(findings: list[doctor_module.Finding]) -> None:
    marks = {True: "ok", False: "WRONG", None: "-"}
    part = ""
    for finding in findings:
        if finding.part != part:
            part = finding.part
            print(f"{part}:")
        print(f"  {marks[finding.ok]:6} {finding.about:30} {finding.says}")
        if finding.hint and finding.ok is not True:
            print(f"  {'':6} {'':30} -> {finding.hint}")
    bad = len(doctor_module.wrong(findings))
    told = f"{bad} of {len(findings)} findings are wrong" if bad else "nothing is wrong"
    print(f"\n{told}")


def run_tests(
    context: typer.Context,
    soak: Annotated[bool, typer.Option("--soak", help="Also the long campaigns.")] = False,
) -> None:
    """Run all checks and tests that this machine can run; further arguments go to pytest."""
    with told():
        result = testing.run_stages(checkout(), context.args, soak=soak)
        testing.tell(result)
        raise typer.Exit(1 if result.failed else 0)


def bench(context: typer.Context) -> None:
    """Run a benchmark: `bench NAME [--json]`; `bench --help` lists them."""
    with told():
        argv = (sys.executable, "-m", "bench", *context.args)
        raise typer.Exit(subprocess.run(argv, cwd=checkout(), check=False).returncode)


def lint() -> None:
    """Check format, style, types, and the layers of the architecture."""
    with told():
        result = testing.lint(checkout())
        raise typer.Exit(1 if result.failed else 0)


def lock() -> None:
    """Write the lock files anew after a change of dependencies (for developers)."""
    with told():
        locks.write(checkout())


def _layout(root: Path) -> Layout:
    return Layout(Path(os.path.abspath(root)))
