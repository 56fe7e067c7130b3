"""Runs the security service of a node: `python -m trivet.security`."""

from __future__ import annotations

from trivet.runtime.runner import main as run_service
from trivet.security.bootstrap import bootstrap


def main() -> None:
    """Run until told to stop."""
    run_service("security", bootstrap)


if __name__ == "__main__":
    main()
