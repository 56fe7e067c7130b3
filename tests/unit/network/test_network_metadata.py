"""What guests read of themselves, and the little HTTP by which they do."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from trivet.contracts.compute.endpoints.vm_instance_data import InstanceData
from trivet.contracts.model import ResourceId
from trivet.contracts.network.network import Network, NetworkSpec, NetworkStatus
from trivet.contracts.network.port import Port, PortSpec, PortStatus
from trivet.contracts.resource import Meta
from trivet.network.domain import metadata_http as http
from trivet.network.domain.metadata import Asker, look_up

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MAC = "02:00:00:00:00:02"
KEY = "ssh-ed25519 AAAA me@home"


def meta(kind: str, name: str) -> Meta:
    return Meta(id=ResourceId(f"{kind}-1"), name=name, project="p", created_at=NOW)


ASKER = Asker(
    vm=InstanceData(
        id=ResourceId("vm-1"), name="web", project="p", labels={"tier": "front"}, node="n1",
        user_data="#!/bin/sh\necho hello\n", ssh_keys=(KEY,),
    ),
    port=Port(
        meta=meta("port", "web-0"),
        spec=PortSpec(network="lan"),
        status=PortStatus(mac=MAC, addresses=("10.9.0.2", "fd00:9::2"), mtu=1450),
    ),
    network=Network(
        meta=meta("network", "lan"), spec=NetworkSpec(subnets=("10.9.0.0/24", "fd00:9::/64")),
        status=NetworkStatus()
    ),
)  # fmt: skip
BARE = Asker(ASKER.vm.model_copy(update={"user_data": None, "ssh_keys": ()}), ASKER.port,
             ASKER.network)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/latest/meta-data/instance-id", "vm-1"),
        ("/2009-04-04/meta-data/instance-id/", "vm-1"),
        ("/latest/meta-data/hostname", "web"),
        ("/latest/meta-data/local-ipv4", "10.9.0.2"),
        ("/latest/meta-data/ipv6", "fd00:9::2"),
        ("/latest/meta-data/public-keys/0/openssh-key", KEY),
        ("/latest/meta-data/public-keys", "0/"),
        ("/latest/user-data", "#!/bin/sh\necho hello\n"),
        ("/openstack/latest/user_data", "#!/bin/sh\necho hello\n"),
        (f"/latest/meta-data/network/interfaces/macs/{MAC}/local-ipv4s", "10.9.0.2"),
        ("/latest/meta-data/network/interfaces/macs/", f"{MAC}/"),
        ("/latest", "meta-data/\nuser-data"),
        ("/openstack/latest",
         "meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json"),
        ("/latest/meta-data/nothing", None),
        ("/1999-01-01/meta-data/instance-id", None),
        ("/openstack/1999-01-01", None),
        ("/etc/passwd", None),
    ],
)  # fmt: skip
def test_the_trees(path: str, text: str | None) -> None:
    assert look_up(path, ASKER) == text


def test_what_openstack_tells() -> None:
    told = json.loads(look_up("/openstack/latest/meta_data.json", ASKER) or "")
    assert (told["uuid"], told["hostname"], told["meta"]) == ("vm-1", "web", {"tier": "front"})
    assert told["public_keys"] == {"key-0": KEY}
    told = json.loads(look_up("/openstack/latest/network_data.json", ASKER) or "")
    assert told["links"][0]["ethernet_mac_address"] == MAC


def test_what_was_not_given_is_not_there() -> None:
    assert look_up("/latest/user-data", BARE) is None
    assert look_up("/openstack/latest/user_data", BARE) is None
    assert look_up("/latest/meta-data/public-keys", BARE) is None


def test_roots_name_what_is_below() -> None:
    assert "latest" in (look_up("/", ASKER) or "")
    assert "latest" in (look_up("/openstack", ASKER) or "")


@pytest.mark.parametrize(
    "head",
    [b"", b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET /\u00e4 HTTP/1.1\r\n\r\n".encode()],
)  # fmt: skip
def test_what_is_no_request(head: bytes) -> None:
    assert http.parse(head) is None


def test_a_request() -> None:
    asked = http.parse(b"GET /latest?x=1 HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: a\r\n\r\n")
    assert asked == http.Asked("GET", "/latest", {"host": "h", "x-forwarded-for": "a"})
    assert http.forbidden(asked)


@pytest.mark.parametrize(
    ("text", "ttl"),
    [("60", 60), ("21600", 21600), ("21601", None), ("0", None), ("", None), ("-1", None),
     ("9" * 40, None), ("\u0661", None)],
)  # fmt: skip
def test_how_long_a_token_may_be_good(text: str, ttl: int | None) -> None:
    asked = http.Asked("PUT", http.TOKEN_PATH, {http.TTL_HEADER: text})
    assert http.wanted_ttl(asked) == ttl


def test_a_token_is_its_owners_for_its_time() -> None:
    token = http.make_token(b"secret", "vm-1", 100)
    assert http.good_token(b"secret", "vm-1", token, 99)
    assert not http.good_token(b"secret", "vm-1", token, 100)
    assert not http.good_token(b"secret", "vm-2", token, 99)
    assert not http.good_token(b"other", "vm-1", token, 99)
    assert not http.good_token(b"secret", "vm-1", token.replace("100", "999"), 99)
    for bad in ("", "-", "100", "x-y", "100-\u00e4"):
        assert not http.good_token(b"secret", "vm-1", bad, 99)


def test_the_rate_is_bounded_and_comes_back() -> None:
    bucket, answered = None, 0
    for _ in range(1000):
        bucket, may = http.take(bucket, 5.0)
        answered += may
    assert answered == http.BURST
    assert http.take(bucket, 6.0)[1]
