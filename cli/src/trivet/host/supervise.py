"""The supervisor's process: `python -m trivet.host.supervise --root DIR --version V`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trivet.host.layout import Layout
from trivet.host.supervisor import supervise


def main() -> None:
    """Read the command line and supervise."""
    parser = argparse.ArgumentParser(prog="trivet-supervisor")
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--version", default="")
    arguments = parser.parse_args()
    supervise(Layout(arguments.root), arguments.version)


if __name__ == "__main__":
    main()
