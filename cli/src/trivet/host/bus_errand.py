"""What the supervisor has to say on the bus, said by a process of its own.

It is said when the node starts and when it stops. What that takes, the bus's client with the
contracts of services, is half of what the supervisor would be made of, all the time in between.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from trivet.host.layout import Layout

PROVISION = "provision"
PROVISION_S = 10.0
"""Of one attempt: while the most of a cluster's buses are away, the rest of the node goes on."""

DRAIN = "drain"
START_S = 60.0
"""A process's start and end, on a machine that has much else to do."""


def send(errand: str, layout: Layout, timeout_s: float) -> tuple[bool, str]:
    """Have an errand done; whether it was, and what it came to, as one line."""
    argv = (sys.executable, "-m", __name__, errand, "--root", str(layout.root))
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s + START_S,
            cwd="/",
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return False, str(error)
    if done.returncode == 0:
        return True, done.stdout.strip()
    return False, (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]


def main() -> None:
    """Do one errand: say what came of it, or end with why not."""
    # Late: the supervisor imports this module too.
    import asyncio

    from trivet.contracts.errors import TrivetError
    from trivet.host import bus_admin
    from trivet.runtime.settings import load_settings

    parser = argparse.ArgumentParser(prog="trivet-bus-errand")
    parser.add_argument("errand", choices=(PROVISION, DRAIN))
    parser.add_argument("--root", type=Path, default=Path("/"))
    arguments = parser.parse_args()
    layout = Layout(arguments.root)
    try:
        settings = load_settings({"TRIVET_SETTINGS": str(layout.settings_file)})
        if arguments.errand == PROVISION:
            asyncio.run(bus_admin.provision(settings, PROVISION_S))
            print("the bus has its streams and buckets")
        else:
            drained = asyncio.run(bus_admin.drain(settings, bus_admin.DRAIN_GRACE_S))
            print(f"guests stopped: {drained.stopped}, of them by force: {drained.forced}")
    except TrivetError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
