"""`python -m bench NAME [--json]`, which `./trivet bench` runs from the checkout."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from bench.measure import machine, tell

SHARED = {
    "__init__",
    "__main__",
    "measure",
    "fakenode",
    "instance",
    "load",
    "stored",
    "fio",
    "cluster",
    "enclosure",
    "gluster",
    "ceph",
    "waterfall",
}


def names() -> list[str]:
    """All benchmarks, as they are called."""
    here = Path(__file__).parent
    return sorted(p.stem.replace("_", "-") for p in here.glob("*.py") if p.stem not in SHARED)


def main() -> int:
    """Run one; its own arguments follow its name."""
    parser = argparse.ArgumentParser(prog="trivet bench", description=__doc__)
    parser.add_argument("name", choices=names())
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments, own = parser.parse_known_args()
    module = importlib.import_module(f"bench.{arguments.name.replace('-', '_')}")
    # Told to end, it takes away what it made, as it does on an interrupt.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    about = machine()
    tell(arguments.name, module.run(own), about, as_json=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
