"""What tests of the lab tell when all is over: figures that are worth reading though all passed."""

from collections.abc import Callable

import pytest

TOLD = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def tell_at_the_end(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print a text under the results of the run."""
    return pytestconfig.stash.setdefault(TOLD, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for text in config.stash.get(TOLD, []):
        terminalreporter.write_line(f"\n{text}")
