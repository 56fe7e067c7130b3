"""Runs the network service of a node: `python -m trivet.network`."""

from __future__ import annotations

from trivet.network.bootstrap import bootstrap
from trivet.runtime.runner import main as run_service


def main() -> None:
    """Run until told to stop."""
    run_service("network", bootstrap, netlink=True)


if __name__ == "__main__":
    main()
