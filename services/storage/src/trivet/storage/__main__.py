"""Runs the storage service of a node: `python -m trivet.storage`."""

from __future__ import annotations

from trivet.runtime.runner import main as run_service
from trivet.storage.bootstrap import bootstrap


def main() -> None:
    """Run until told to stop."""
    run_service("storage", bootstrap)


if __name__ == "__main__":
    main()
