"""A client that knows several gateways of a cluster asks another one where one is away."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from trivet.client import Client
from trivet.client.config import load_config
from trivet.contracts.errors import TIMEOUT, UNAVAILABLE, Retry

Answer = Callable[[httpx.Request], httpx.Response]
HOSTS = ("a", "b", "c")


class Gateways:
    """Gateways of which some are away, and which of them were asked."""

    def __init__(self, **away: Exception) -> None:
        self.away = away
        self.asked: list[str] = []
        transport = httpx.MockTransport(self._answer)
        first, *others = (f"http://{host}" for host in HOSTS)
        self.client = Client(first, "t", transport=transport, other_urls=others, retry_s=0)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        if error := self.away.get(request.url.host):
            raise error
        return httpx.Response(200, json={"version": request.url.host})


def test_the_first_is_asked_while_it_is_there() -> None:
    cluster = Gateways()
    assert [cluster.client.version() for _ in range(3)] == ["a"] * 3


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ConnectTimeout("late")])
def test_one_that_is_away_is_not_asked_again_while_another_answers(error: Exception) -> None:
    cluster = Gateways(a=error, b=error)
    assert [cluster.client.version() for _ in range(2)] == ["c", "c"]
    assert cluster.asked == ["a", "b", "c", "c"]


def test_each_is_asked_once_where_none_is_there() -> None:
    cluster = Gateways(**{host: httpx.ConnectError("no") for host in HOSTS})
    with pytest.raises(Retry) as caught:
        cluster.client.version()
    assert caught.value.code is UNAVAILABLE
    assert sorted(cluster.asked) == list(HOSTS)


def test_what_may_have_happened_is_not_asked_of_another() -> None:
    cluster = Gateways(a=httpx.ReadTimeout("late"))
    with pytest.raises(Retry) as caught:
        cluster.client.version()
    assert caught.value.code is TIMEOUT
    assert cluster.asked == ["a"]


def test_the_configuration_names_them_all_but_an_address_in_the_environment_is_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "client.toml"
    file.write_text('url = "http://a"\nother_urls = ["http://b"]\n')
    env = {"TRIVET_CONFIG": str(file)}
    assert load_config(env).other_urls == ("http://b",)
    alone = load_config({**env, "TRIVET_URL": "http://z"})
    assert (alone.url, alone.other_urls) == ("http://z", ())
