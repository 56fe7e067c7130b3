"""What is too much, too large, too slow or too often is told so, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trivet.contracts.endpoint import Endpoint
from trivet.gateway import server
from trivet.gateway.limits import Limits
from trivet.gateway.server import serve
from trivet.runtime.settings import GatewaySettings

VMS = "/v1/projects/red/vms"


async def talk(address: str, *sent: bytes) -> bytes:
    """All that comes back for these bytes, until the other side closes."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in sent:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


def told(reply: bytes) -> tuple[int, str]:
    """Status and code of a refusal."""
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    problem = json.loads(body)
    assert problem["hint"]
    return int(head.split()[1]), problem["code"]


async def test_too_many_headers(served: Any) -> None:
    async with served() as (_, address, _):
        many = b"".join(b"X-%d: y\r\n" % n for n in range(Limits().headers + 1))
        reply = await talk(address, b"GET /v1/version HTTP/1.1\r\n" + many + b"\r\n")
        assert told(reply) == (431, "request.head_too_large")


@pytest.mark.parametrize("start", [b"GET /v1/", b"GET /v1/version HTTP/1.1\r\nX: "])
async def test_too_large_a_head(served: Any, start: bytes) -> None:
    async with served() as (_, address, _):
        reply = await talk(address, start + b"x" * (Limits().head_bytes + 1))
        assert told(reply) == (431, "request.head_too_large")


@pytest.mark.parametrize(
    "sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9\r\n\r\n"]
)
async def test_what_is_no_http(served: Any, sent: bytes) -> None:
    async with served() as (_, address, _):
        assert told(await talk(address, sent)) == (400, "request.malformed")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"GET /v1/version HTTP/1.1\r\nHost: a",
        b"GET /v1/version HTTP/1.1\r\nHost: a\r\n\r\nGET",
    ],
)
async def test_a_head_that_comes_too_slowly_and_others_meanwhile(served: Any, sent: bytes) -> None:
    async with served(head_s=1.0) as (_, address, _):
        slow = [asyncio.create_task(talk(address, sent)) for _ in range(50)]
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://{address}/v1/version")).status_code == 200
        for reply in await asyncio.gather(*slow):
            last = reply[reply.rindex(b"HTTP/1.1 ") :]
            assert told(last) == (408, "request.too_slow")


async def test_a_body_that_comes_too_slowly(served: Any) -> None:
    async with served(body_read_s=0.1) as (_, address, _):
        head = (
            f"POST {VMS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer admin\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"
        )
        assert told(await talk(address, head.encode())) == (408, "request.too_slow")


async def test_more_connections_than_the_bound_are_closed(served: Any, until: Any) -> None:
    async with served(connections_per_address=2) as (_, address, _):
        host, port = address.split(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        async with httpx.AsyncClient() as http:
            with pytest.raises(httpx.TransportError):
                await http.get(f"http://{address}/v1/version")
            held[0][1].close()

            async def taken() -> bool:
                try:
                    reply = await http.get(f"http://{address}/v1/version")
                except httpx.TransportError:
                    return False
                return reply.status_code == 200

            await until(taken)
        held[1][1].close()


async def test_a_websocket_is_no_connection_any_more_and_leaves_no_count(
    served: Any, until: Any
) -> None:
    import websockets

    async with served(connections_per_address=1) as (_, address, _):
        headers = {"Authorization": "Bearer admin"}
        for _ in range(3):
            url = f"ws://{address}/v1/events?since=0"
            async with websockets.connect(url, additional_headers=headers):
                pass


async def test_a_token_that_comes_too_often(make_site: Any) -> None:
    async with make_site(Limits(rate_per_s=0.01, rate_burst=3)) as site:
        replies = [await site.ask("GET", VMS) for _ in range(4)]
        assert [r.status_code for r in replies] == [200, 200, 200, 429]
        assert int(replies[3].headers["Retry-After"]) > 1
        assert replies[3].json()["code"] == "request.too_many"
        assert "rate_per_s" in replies[3].json()["hint"]
        assert (await site.ask("GET", VMS, who="alice")).status_code == 200


async def test_an_address_that_tries_tokens(make_site: Any) -> None:
    async with make_site(Limits(denials_per_s=0.01, denials_burst=3)) as site:
        await site.ask("GET", VMS)
        tries = [await site.ask("GET", VMS, who=f"guess-{n}") for n in range(6)]
        assert [r.status_code for r in tries] == [401] * 3 + [429] * 3
        assert site.cloud.verified == 4, "the last ones were not even looked up"
        assert (await site.ask("GET", VMS, who=None)).status_code == 429
        assert (await site.ask("GET", VMS)).status_code == 200, "who is known goes on"
        await site.gateway.stop()
        assert len(site.cloud.audit) == 3


async def test_one_token_can_not_take_every_place(make_site: Any, until: Any) -> None:
    async with make_site(Limits(requests_per_token=1)) as site:
        await site.ask("POST", VMS, json={"meta": {"name": "web"}, "spec": {}})
        site.cloud.settles = False
        slow = asyncio.create_task(site.ask("GET", f"{VMS}/web?wait=1"))
        await until(lambda: site.cloud.calls[-1][0] == "vm.get")
        refused = await site.ask("GET", VMS)
        assert (refused.status_code, refused.json()["code"]) == (429, "request.too_many")
        assert (await site.ask("GET", VMS, who="alice")).status_code == 200
        await slow
        assert (await site.ask("GET", VMS)).status_code == 200


async def test_one_user_can_not_take_every_stream(served: Any) -> None:
    async with served(streams_per_user=1) as (site, address, _), httpx.AsyncClient() as http:
        url = f"http://{address}/v1/events"
        async with http.stream("GET", url, headers={"Authorization": "Bearer admin"}) as first:
            lines = first.aiter_lines()
            await anext(lines)
            await site.cloud.emit("created")
            async for line in lines:
                if line.startswith("data"):
                    break
            refused = await http.get(url, headers={"Authorization": "Bearer admin"})
            assert (refused.status_code, refused.json()["code"]) == (429, "request.too_many")
            other = {"Authorization": "Bearer alice"}
            async with http.stream("GET", url, headers=other) as second:
                assert second.status_code == 200


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    return files


async def test_a_stop_does_not_wait_for_idle_clients_over_tls(
    make_site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_S", 600)
    cert, key = certificate(tmp_path)
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    async with make_site(Limits()) as site:
        listener = socket.create_server(("127.0.0.1", 0))
        port, stop = listener.getsockname()[1], asyncio.Event()
        settings = GatewaySettings(certificate=cert, private_key=key)
        serving = asyncio.create_task(serve(site.gateway, settings, listener, stop))
        # Blocking sockets in threads: a client that never reads says no goodbye.
        idle = []
        for _ in range(5):
            plain = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))
            tls = await asyncio.to_thread(trust.wrap_socket, plain)
            await asyncio.to_thread(tls.sendall, b"GET /v1/version HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.to_thread(tls.recv, 100)).startswith(b"HTTP/1.1 200")
            idle.append(tls)
        stop.set()
        async with asyncio.timeout(60):
            await serving
        for tls in idle:
            tls.close()


async def test_a_service_that_does_not_answer_in_time_is_unavailable_and_keeps_nobody(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.cloud.bus.broker.faults.lose_reply = lambda subject: subject.endswith("vm.get.v1")
    monkeypatch.setattr(Endpoint, "deadline_s", lambda self, request: 0.05)
    reply = await site.ask("GET", f"{VMS}/web")
    assert (reply.status_code, reply.json()["code"]) == (503, "bus.timeout")
    assert reply.headers["Retry-After"] == "1"
    assert reply.json()["hint"]
