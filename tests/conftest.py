"""What this run may do: tests of the real engines need root, long campaigns are asked for."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # time is told by bench/, not by tests
settings.load_profile("any machine")

TOLD = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the long campaigns")
    parser.addoption("--seed", type=int, default=1, help="from which a campaign is drawn")
    parser.addoption("--faults", type=int, default=30, help="how many seeds a campaign has")
    parser.addoption(
        "--results", type=Path, help="keeps a campaign's outcomes; has them: not again"
    )
    parser.addoption("--within", type=float, default=1e9, help="begin no seed after that long (s)")
    parser.addoption("--kills", type=int, default=50, help="how many points a kill campaign has")
    parser.addoption("--first", type=int, default=1, help="begin with this one of them")
    parser.addoption(
        "--point", action="append", help="do this point of the kill campaign (storage@create+0.73)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if os.geteuid() != 0:
        reasons["root"] = "needs root and the real engines; run with sudo"
    if not config.getoption("--soak"):
        reasons["soak"] = "a long campaign; run with --soak"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def tell_at_the_end(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print a text under the results of the run."""
    return pytestconfig.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for text in config.stash.get(TOLD, []):
        terminalreporter.write_line(f"\n{text}")
