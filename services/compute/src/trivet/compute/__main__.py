"""Runs the compute service of a node: `python -m trivet.compute`."""

from __future__ import annotations

from trivet.compute.bootstrap import bootstrap
from trivet.runtime.runner import main as run_service


def main() -> None:
    """Run until told to stop."""
    run_service("compute", bootstrap)


if __name__ == "__main__":
    main()
