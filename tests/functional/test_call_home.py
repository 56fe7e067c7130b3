"""What any instance may answer is asked of the caller's own node first."""

from collections.abc import Callable

import pytest

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.errors import NOT_FOUND, UNAVAILABLE, Refused, Retry, TrivetError
from trivet.runtime.call import Call, Client, EndpointHandler, answer
from trivet.testing.memory_bus import MemoryBroker, MemoryBus

ANY = Endpoint("network", "thing.look", Nothing, Nothing, INTERNAL, "")
HERE = Endpoint("network", "thing.here", Nothing, Nothing, INTERNAL, "", per_node=True)
CALLS = 12


class Cluster:
    """Instances of one service, and who answered what."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.answered: list[str] = []

    async def start(self, node: str, fails: TrivetError | None = None) -> MemoryBus:
        bus = MemoryBus(self.broker)
        for subject in (ANY.subject(), ANY.subject_at(node), HERE.subject(node)):
            await bus.serve(subject, answer(ANY, self._says(node, fails)), queue="n", bound=8)
        return bus

    def _says(self, node: str, fails: TrivetError | None) -> EndpointHandler:
        async def handle(request: Nothing, call: Call) -> Nothing:
            self.answered.append(node)
            if fails is not None:
                raise fails
            return Nothing()

        return handle

    def client(self, home: str | None) -> Client:
        return Client(MemoryBus(self.broker), "compute", home)


@pytest.fixture
async def cluster() -> Cluster:
    made = Cluster()
    for node in ("n1", "n2", "n3"):
        await made.start(node)
    return made


async def test_ones_own_node_answers(cluster: Cluster) -> None:
    for _ in range(CALLS):
        await cluster.client("n2").call(ANY, Nothing())
    assert cluster.answered == ["n2"] * CALLS


async def test_who_is_on_no_node_is_answered_by_all_in_turn(cluster: Cluster) -> None:
    client = cluster.client(None)
    for _ in range(CALLS):
        await client.call(ANY, Nothing())
    assert set(cluster.answered) == {"n1", "n2", "n3"}


async def test_another_answers_where_ones_own_node_has_none(cluster: Cluster) -> None:
    await cluster.client("n4").call(ANY, Nothing())
    assert len(cluster.answered) == 1


async def test_a_node_that_is_named_is_asked_and_no_other(cluster: Cluster) -> None:
    await cluster.client("n2").call(HERE, Nothing(), node="n3")
    assert cluster.answered == ["n3"]
    with pytest.raises(Retry) as caught:
        await cluster.client("n2").call(HERE, Nothing(), node="n4")
    assert caught.value.code is UNAVAILABLE


@pytest.mark.parametrize(
    "fails",
    [
        lambda: Refused(NOT_FOUND, "no"),
        # The handler's own word that something else is away is an answer, too.
        lambda: Retry(UNAVAILABLE, "the store is away"),
    ],
)
async def test_an_error_is_an_answer_and_nobody_else_is_asked(
    fails: Callable[[], TrivetError],
) -> None:
    cluster = Cluster()
    await cluster.start("n1", fails())
    await cluster.start("n2")
    with pytest.raises(type(fails())):
        await cluster.client("n1").call(ANY, Nothing())
    assert cluster.answered == ["n1"]
