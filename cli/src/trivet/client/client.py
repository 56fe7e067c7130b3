"""The Python client of the API: every declared operation, typed, with Trivet's own errors.

Nothing in it is written per resource: `client.vms.create(...)` is found by the kind's plural and
the operation's verb, and `client.call(ENDPOINT, request)` is what all of it comes down to.
"""

from __future__ import annotations

import secrets
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import ValidationError

from trivet.client.config import ClientConfig
from trivet.client.resources import Resources
from trivet.client.retries import Unsent, may_repeat, pause_s
from trivet.client.wire import error_of, http_request
from trivet.contracts import all_codes
from trivet.contracts.endpoint import (
    SERVICES,
    CreateRequest,
    Endpoint,
    ListRequest,
    RequestT,
    ResponseT,
    declared,
)
from trivet.contracts.errors import (
    INTERNAL,
    MALFORMED,
    TIMEOUT,
    UNAUTHENTICATED,
    UNAVAILABLE,
    Fatal,
    FieldError,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.event import CloudEvent
from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, ResourceT

if TYPE_CHECKING:
    from trivet.client.streams import Stream

GRACE_S = 5.0
"""On top of an operation's own time: the way there and back."""

CONNECT_S = 5.0
CONNECT_ONE_OF_MANY_S = 1.0
"""For a gateway while there is another to turn to."""

DOWNLOAD_S = 30.0
"""How long a body of bytes may take on top of that."""

EVENT_SILENCE_S = 60.0
"""A stream of events says at least that it is there; silent for so long, it is dead."""

RECONNECT_S = 1.0
RETRY_S = 10.0
_ModelT = TypeVar("_ModelT", bound=Model)

all_codes.declare()


@dataclass(frozen=True)
class SeenEvent:
    """An event and its place in the stream."""

    seq: int
    event: CloudEvent


class Client:
    """Calls the API at `url` with `token`; `ca_file` is the authority to trust. `other_urls`:
    gateways of the same cluster, asked in turn where one can't be reached.

    For `retry_s` seconds a call that failed for now is sent again, where that can't do a thing
    twice (`retries`); POSTs are then sent under an idempotency key. One client is for one
    thread; programs on asyncio call it by `asyncio.to_thread`.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        ca_file: Path | None = None,
        *,
        project: str = "default",
        retry_s: float = RETRY_S,
        transport: httpx.BaseTransport | None = None,
        other_urls: Sequence[str] = (),
    ) -> None:
        self.project = project
        self._retry_s = retry_s
        self._urls = deque(each.rstrip("/") for each in (url, *other_urls))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._trust = _trust(ca_file) if self._url.startswith("https") else True
        self._http = httpx.Client(
            base_url=self._url,
            headers=self._headers,
            verify=self._trust,
            transport=transport,
            trust_env=False,
        )

    @classmethod
    def of(cls, config: ClientConfig, *, retry_s: float = RETRY_S) -> Self:
        """The client of a configuration."""
        where = config.url, config.token, config.ca_file
        more = config.other_urls
        return cls(*where, project=config.project, retry_s=retry_s, other_urls=more)

    @property
    def _url(self) -> str:
        """The gateway that is asked now."""
        return self._urls[0]

    def _turn(self) -> None:
        """Ask the next gateway from now on."""
        self._urls.rotate(-1)
        self._http.base_url = httpx.URL(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def kind(self, kind: Kind[ResourceT]) -> Resources[ResourceT]:
        """The operations that all kinds have, on the resources of this one, typed."""
        found = {e.verb: e for e in declared(kind.service) if e.http and e.kind is kind}

        def call(
            endpoint: Endpoint[Any, Any],
            name: str | None,
            fields: dict[str, Any],
            wait_s: float,
            key: str | None,
        ) -> Any:
            request = build_request(endpoint, name, fields, self.project)
            return self.call(endpoint, request, wait_s=wait_s, key=key)

        return Resources(kind, found, call)

    def call(
        self,
        endpoint: Endpoint[RequestT, ResponseT],
        request: RequestT,
        *,
        wait_s: float = 0,
        key: str | None = None,
    ) -> ResponseT:
        """The response, or the error of the other side; `wait_s` (0-60) as `?wait=`.

        `key` is the `Idempotency-Key` of a POST: a repeat under it gets the first answer.
        """
        asked = http_request(endpoint, request, wait_s)
        if asked.method == "POST" and (key is not None or self._retry_s):
            asked.headers["Idempotency-Key"] = key or secrets.token_hex(16)
        reply = self._send(
            asked.method,
            asked.path,
            timeout_s=endpoint.timeout_s + wait_s + GRACE_S,
            params=asked.query,
            headers=asked.headers,
            json=asked.body,
        )
        return _read(endpoint.response, reply.content)

    def download(self, endpoint: Endpoint[RequestT, Any], request: RequestT) -> bytes:
        """The body of an operation that answers bytes."""
        asked = http_request(endpoint, request)
        timeout_s = endpoint.timeout_s + DOWNLOAD_S
        return self._send(asked.method, asked.path, timeout_s=timeout_s, params=asked.query).content

    @contextmanager
    def stream(self, endpoint: Endpoint[RequestT, Any], request: RequestT) -> Iterator[Stream]:
        """The WebSocket of an operation that answers a stream; closed with the block."""
        from trivet.client.streams import joined

        asked = http_request(endpoint, request)
        self._reach()
        query = f"?{urlencode(asked.query)}" if asked.query else ""
        trust = self._trust if isinstance(self._trust, ssl.SSLContext) else None
        address = f"ws{self._url.removeprefix('http')}{asked.path}{query}"
        with joined(address, self._headers, trust) as stream:
            yield stream

    def version(self) -> str:
        """The gateway's version."""
        return str(self._send("GET", "/v1/version", timeout_s=GRACE_S).json()["version"])

    def health(self) -> dict[str, Any]:
        """How the services are, as the gateway sees them; `status` is `ok` or `degraded`."""
        reply = self._send("GET", "/v1/health", timeout_s=10 + GRACE_S, accepted=(200, 503))
        return dict(reply.json())

    def __getattr__(self, plural: str) -> Operations:
        found = {
            e.verb.replace("-", "_"): e
            for service in SERVICES
            for e in declared(service)
            if e.http and e.kind and e.kind.plural.replace("-", "_") == plural
        }
        if not found:
            raise AttributeError(f"there are no {plural}")
        return Operations(self, found)

    def events(
        self,
        subject: str | None = None,
        *,
        since: int | None = None,
        project: str | None = None,
    ) -> Iterator[SeenEvent]:
        """Events from now on, or from `since`, for ever; a connection that breaks is made
        again after the last event that came. A refusal is raised."""
        last: int | None = None
        while True:
            self._reach()
            query = {"subject": subject, "project": project, "since": since if not last else None}
            headers = {"Last-Event-ID": str(last)} if last else {}
            asked = {k: str(v) for k, v in query.items() if v is not None}
            try:
                for seen in self._stream(asked, headers):
                    last = seen.seq
                    yield seen
            except Retry:
                if last is None:
                    raise
            time.sleep(RECONNECT_S)

    def _reach(self) -> None:
        """Turn to a gateway that can be reached, where there are several."""
        if len(self._urls) > 1:
            self.version()

    def _stream(self, query: dict[str, str], headers: dict[str, str]) -> Iterator[SeenEvent]:
        timeout = httpx.Timeout(CONNECT_S, read=EVENT_SILENCE_S)
        try:
            with self._http.stream(
                "GET", "/v1/events", params=query, headers=headers, timeout=timeout
            ) as reply:
                if reply.status_code != 200:
                    retry_after = reply.headers.get("Retry-After")
                    raise error_of(reply.status_code, reply.read(), retry_after)
                seq = 0
                for line in reply.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "id":
                        seq = int(value)
                    elif name == "data":
                        yield SeenEvent(seq, _read(CloudEvent, value.encode()))
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The reply, after as many attempts as the time allows and the call bears."""
        keyed = "Idempotency-Key" in more.get("headers", {})
        give_up, attempt = time.monotonic() + self._retry_s, 0
        while True:
            attempt += 1
            try:
                return self._send_once(method, path, **more)
            except TrivetError as error:
                after_s = pause_s(attempt, error)
                late = time.monotonic() + after_s > give_up
                if late or not may_repeat(error, method, keyed=keyed):
                    raise
                self._turn()
                time.sleep(after_s)

    def _send_once(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float,
        accepted: tuple[int, ...] = (200, 201),
        **more: Any,
    ) -> httpx.Response:
        reply = self._reply(method, path, timeout_s, **more)
        if reply.status_code in accepted:
            return reply
        error_told = error_of(reply.status_code, reply.content, reply.headers.get("Retry-After"))
        if error_told.code is UNAUTHENTICATED and "Authorization" not in self._http.headers:
            hint = "run `trivet up` on a node, or set TRIVET_URL and TRIVET_TOKEN"
            raise Refused(UNAUTHENTICATED, "no token is configured", hint=hint)
        raise error_told

    def _reply(self, method: str, path: str, timeout_s: float, **more: Any) -> httpx.Response:
        """What the first gateway answers that can be reached."""
        for left in reversed(range(len(self._urls))):
            connect_s = CONNECT_ONE_OF_MANY_S if left else CONNECT_S
            timeout = httpx.Timeout(timeout_s, connect=connect_s)
            try:
                return self._http.request(method, path, timeout=timeout, **more)
            except httpx.TransportError as error:
                told = self._unreachable(error)
                if not left or not isinstance(told, Unsent):
                    raise told from error
                self._turn()
        raise AssertionError("there is at least one gateway")

    def _unreachable(self, error: httpx.TransportError) -> Retry | Refused:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            detail = f"the certificate of {self._url} is not trusted"
            return Refused(UNAVAILABLE, detail, hint="ca_file names the authority to trust")
        detail = f"can't reach {self._url}: {error}"
        hint = "`sudo ./trivet up` starts a node"
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return Unsent(UNAVAILABLE, detail, hint=hint)
        if isinstance(error, httpx.TimeoutException):
            return Retry(TIMEOUT, f"no answer from {self._url}")
        return Retry(UNAVAILABLE, detail, hint=hint)


class Operations:
    """The operations of one kind, by verb: `client.vms.create(name="web", spec={...})`."""

    def __init__(self, client: Client, endpoints: dict[str, Endpoint[Any, Any]]) -> None:
        self._client = client
        self._endpoints = endpoints

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        endpoint = self._endpoints.get(verb)
        if endpoint is None:
            raise AttributeError(f"no operation {verb}; there are {', '.join(self._endpoints)}")

        def operate(name: str | None = None, *, wait_s: float = 0, **fields: Any) -> Any:
            request = build_request(endpoint, name, fields, self._client.project)
            return self._client.call(endpoint, request, wait_s=wait_s)

        return operate


def build_request(
    endpoint: Endpoint[Any, Any], name: str | None, fields: dict[str, Any], project: str
) -> Model:
    """The request of an operation from its fields; `project` is where none is named.

    A create takes `name`, `labels`, `project` and `spec`. A list with `project` None is over all
    projects. Raises `Refused(MALFORMED)` naming each wrong field.
    """
    values = dict(fields)
    in_project = endpoint.http is not None and "{project}" in endpoint.http.path
    where = values.pop("project", project) if in_project else None
    if issubclass(endpoint.request, CreateRequest):
        meta = {"name": name, "labels": values.pop("labels", {}), "project": where}
        values["meta"] = meta
    else:
        if name is not None:
            values["name"] = name
        if in_project and (where is not None or issubclass(endpoint.request, ListRequest)):
            values["project"] = where
    if isinstance(spec := values.get("spec"), Model):
        values["spec"] = spec.model_dump(mode="json", exclude_unset=True)
    try:
        request: Model = endpoint.request.model_validate(values)
    except ValidationError as error:
        errors = tuple(
            FieldError(where=".".join(str(p) for p in item["loc"]), message=item["msg"])
            for item in error.errors(include_url=False, include_input=False)
        )
        named = ", ".join(e.where for e in errors)
        raise Refused(MALFORMED, f"not accepted: {named}", errors=errors) from error
    return request


def _read(model: type[_ModelT], content: bytes) -> _ModelT:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        hint = "client and gateway may be of different versions: `trivet version`"
        raise Fatal(INTERNAL, f"the reply is no {model.__name__}", hint=hint) from error


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        detail = f"the authority in {ca_file} can't be read: {error}"
        raise Refused(MALFORMED, detail, hint="ca_file in the client's configuration") from error
