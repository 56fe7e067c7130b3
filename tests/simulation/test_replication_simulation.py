"""The replication protocol's own code in whole simulated clusters, judged from outside.

`--soak` runs ten thousand seeds (from `--seed` on); a failing seed is printed, and run again by
`SIM_SEED=<seed> pytest tests/simulation -k one_seed`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
from tests.simulation.planted_bugs import BUGS, FOUND_BY, planted
from tests.simulation.sim_checker import Violation
from tests.simulation.sim_cluster import Stuck, run
from tests.simulation.sim_node import AgentFailed

SAMPLE = 200
SOAK = 10_000
PIECE = 100
SEEDS_BOUND = 400


def failing(seeds: range) -> list[str]:
    """The seeds of these whose runs fail, each with what was found."""
    found = []
    for seed in seeds:
        try:
            run(seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is told
            found.append(f"seed {seed}: {error!r}"[:400])
    return found


@pytest.mark.parametrize("first", range(0, SAMPLE, PIECE))
def test_a_sample_of_seeds(first: int) -> None:
    assert failing(range(first, first + PIECE)) == []


def test_a_seed_is_a_run() -> None:
    """The same seed is the same run, or a failure could not be looked at again."""
    assert run(7) == run(7)


def test_runs_are_worth_their_time() -> None:
    """Guests write and are acknowledged, holders change, replicas are lost and come back."""
    told = [run(seed) for seed in range(20)]
    assert min(sum(t.acked for t in told), sum(t.reads for t in told)) > 500
    assert sum(t.guests for t in told) > 40
    assert sum(t.faults for t in told) > 200
    assert sum(t.lost > 0 for t in told) > 5


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found(name: str) -> None:
    """The seed that found it before is tried first; others may have to, since the code moves."""
    with planted(name):
        for seed in (FOUND_BY.get(name, 0), *range(SEEDS_BOUND)):
            try:
                run(seed)
            except (Violation, Stuck):
                return
            except AgentFailed:
                continue  # what was planted broke there, and no checker had to find it
    pytest.fail(f"{name}: no checker was alarmed by {SEEDS_BOUND} seeds")


FOUND = {
    2532: "a guest's next run saw a write of the former one come, and go with its replica",
    13847: "a host that started again after its replica came back was believed",
    1350: "the judge held a flush to writes that had been lost with the power before",
}


@pytest.mark.parametrize("seed", sorted(FOUND), ids=FOUND.get)
def test_a_seed_that_found_something(seed: int) -> None:
    run(seed)


def test_one_seed() -> None:
    seed = os.environ.get("SIM_SEED")
    if seed is None:
        pytest.skip("runs the seed that SIM_SEED names")
    run(int(seed))


@pytest.mark.soak
def test_ten_thousand_seeds(
    pytestconfig: pytest.Config, tell_at_the_end: Callable[[str], None]
) -> None:
    first = int(pytestconfig.getoption("--seed")) * SOAK
    pieces = [range(s, s + PIECE) for s in range(first, first + SOAK, PIECE)]
    began = time.perf_counter()
    with ProcessPoolExecutor() as workers:
        found = [line for lines in workers.map(failing, pieces) for line in lines]
    took_s = time.perf_counter() - began
    tell_at_the_end(
        f"{SOAK} simulated clusters from seed {first}: {len(found)} fail, {took_s:.0f} s"
    )
    assert found == []
