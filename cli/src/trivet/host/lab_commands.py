"""`trivet lab`: a cluster of several nodes on this machine, to try things on and break them.

The lab itself is `trivet.testing.lab`, which tests script from Python; here are its words.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trivet.cli.session import WaitOption
from trivet.host import takeaway
from trivet.host.progress import progress, told
from trivet.host.turns import turn
from trivet.testing.lab import clocks
from trivet.testing.lab import disks as faults
from trivet.testing.lab.cluster import DEFAULT_ROOT, Lab
from trivet.testing.lab.plan import DISKS_MAX, NETS, NODES_MAX

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Root = Annotated[
    Path, typer.Option(envvar="TRIVET_LAB_ROOT", help="The folder that holds all of the lab.")
]
Node = Annotated[str, typer.Argument(metavar="NODE", help="n1, n2, ... or just the number")]

NEXT = """\
The lab is ready. Next:
  export TRIVET_CONFIG={TRIVET_CONFIG} TRIVET_ROOT={TRIVET_ROOT}
  ./trivet node list
  ./trivet image build-tiny
  ./trivet vm create web --image tiny --network default --wait
  ./trivet lab kill {last}           # cuts the power of a node; `lab start {last}` gives it back
  ./trivet lab exec {last} -- ip addr
  sudo ./trivet lab down        # removes all of it"""


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX)] = 3,
    disks: Annotated[
        int, typer.Option(min=0, max=DISKS_MAX, help="Of each node; none: its pool is a file.")
    ] = 0,
    ssd: Annotated[
        int, typer.Option(min=0, max=DISKS_MAX, help="How many of them are solid-state.")
    ] = 0,
    witness: Annotated[
        bool, typer.Option("--witness", help="One more, which only has a vote on the bus.")
    ] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Start a cluster of several nodes on this machine."""
    with told():
        takeaway.require_root("lab up")
        lab, say = (
            Lab.create(_whole(root), nodes, disks=disks, ssd=ssd, witness=witness),
            progress(),
        )
        with turn(lab.plan.base, say):
            lab.up(say)
        print(NEXT.format(**lab.client_env(), last=lab.plan.workers[-1]))


@app.command()
def down(root: Root = DEFAULT_ROOT) -> None:
    """Remove the lab with all its data."""
    with told():
        takeaway.require_root("lab down")
        lab, say = Lab.find(_whole(root)), progress()
        with turn(lab.plan.base, say):
            lab.down(say)
        print("The lab was removed.")


@app.command()
def status(root: Root = DEFAULT_ROOT) -> None:
    """Say which nodes are on, how the cluster sees them, and what is cut."""
    with told():
        lab = Lab.find(_whole(root))
        phases = lab.phases()
        for name in lab.plan.names:
            machine = lab.machine(name)
            power = "off" if machine.pid is None else "paused" if machine.paused else "on"
            seconds = clocks.ahead(lab.plan.layout(name))
            off = f"  clock {seconds:+d} s" if seconds else ""
            print(f"{name:8} {power:7} {phases.get(name, '-'):9} {lab.plan.address(name)}{off}")
            for disk in faults.disks_of(lab.plan, name):
                print(f"  {disk.name:6} {'ssd' if disk.ssd else 'hdd':4} {faults.state(disk)}")
        for drop in sorted(lab.switch.drops(), key=repr):
            print(f"cut: {drop.net}: {drop.target} hears nothing of {drop.source}")


@app.command("exec", context_settings={"ignore_unknown_options": True})
def exec_(node: Node, command: list[str], root: Root = DEFAULT_ROOT) -> None:
    """Run a command in a node: `lab exec n1 -- ip addr`."""
    with told():
        lab = Lab.find(_whole(root))
        argv, env = lab.entering(lab.plan.node(node), command)
        sys.stdout.flush()
        os.execvpe(argv[0], argv, env)


@app.command()
def kill(node: Node, root: Root = DEFAULT_ROOT) -> None:
    """Cut the power of a node."""
    with told():
        lab = Lab.find(_whole(root))
        with turn(lab.plan.base, progress()):
            lab.kill(lab.plan.node(node))


@app.command()
def start(
    node: Node,
    wait_s: WaitOption = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Switch a node on again."""
    with told():
        lab, say = Lab.find(_whole(root)), progress()
        with turn(lab.plan.base, say):
            lab.start(lab.plan.node(node))
        if wait_s:
            lab.wait_ready([lab.plan.node(node)], say, wait_s)


@app.command()
def pause(node: Node, root: Root = DEFAULT_ROOT) -> None:
    """Let a node hang: all its processes stop where they are."""
    with told():
        lab = Lab.find(_whole(root))
        lab.pause(lab.plan.node(node))


@app.command()
def resume(node: Node, root: Root = DEFAULT_ROOT) -> None:
    """Let a paused node go on."""
    with told():
        lab = Lab.find(_whole(root))
        lab.resume(lab.plan.node(node))


@app.command()
def cut(
    node: Node,
    off: Annotated[
        list[str] | None, typer.Option("--from", metavar="NODE", help="Only off this one.")
    ] = None,
    net: Annotated[str, typer.Option(help="mgmt, storage or all")] = "all",
    one_way: Annotated[
        bool, typer.Option("--one-way", help="It hears nothing, and is still heard.")
    ] = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Cut a node off the others, or off one of them."""
    if net not in (*NETS, "all"):
        raise typer.BadParameter("mgmt, storage or all", param_hint="--net")
    with told():
        lab = Lab.find(_whole(root))
        others = [lab.plan.node(name) for name in off or ()]
        nets = NETS if net == "all" else (net,)
        lab.cut(lab.plan.node(node), others, nets, one_way=one_way)


@app.command()
def heal(root: Root = DEFAULT_ROOT) -> None:
    """Undo all cuts."""
    with told():
        Lab.find(_whole(root)).heal()


@app.command(context_settings={"ignore_unknown_options": True})
def clock(
    node: Node,
    seconds: Annotated[int, typer.Argument(metavar="+S|-S|0", help="Off this machine's clock.")],
    root: Root = DEFAULT_ROOT,
) -> None:
    """Set a node's clock so many seconds ahead, or behind."""
    with told():
        lab = Lab.find(_whole(root))
        lab.clock(lab.plan.node(node), seconds)


class Fault(StrEnum):
    """What can befall a disk."""

    FAIL = "fail"
    SLOW = "slow"
    STUCK = "stuck"
    CORRUPT = "corrupt"
    PULL = "pull"
    RETURN = "return"


@app.command("disk")
def disk_(
    node: Node,
    disk: Annotated[str, typer.Argument(metavar="DISK", help="d1, d2, ... or just the number")],
    fault: Fault,
    amount: Annotated[
        int | None,
        typer.Argument(min=1, help="slow: milliseconds; corrupt: how many bytes."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="corrupt: which bytes.")] = None,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Let a disk fail, be slow (MS), get stuck, change BYTES, be pulled out; or be well again."""
    if (amount is None) == (fault in (Fault.SLOW, Fault.CORRUPT)):
        raise typer.BadParameter("slow MILLISECONDS, corrupt BYTES; the others have no number")
    with told():
        lab = Lab.find(_whole(root))
        which = lab.disk(lab.plan.node(node), disk)
        match fault:
            case Fault.FAIL:
                faults.fail(which)
            case Fault.SLOW:
                faults.slow(which, amount or 0)
            case Fault.STUCK:
                faults.stick(which)
            case Fault.CORRUPT:
                print("flipped a bit at", *faults.corrupt(which, amount or 0, seed))
            case Fault.PULL:
                faults.pull(which)
            case Fault.RETURN:
                faults.put_in(which)


def _whole(root: Path) -> Path:
    return Path(os.path.abspath(root))
