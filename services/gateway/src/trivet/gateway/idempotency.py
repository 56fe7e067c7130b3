"""`Idempotency-Key`: a repeated POST is answered as it was the first time, for a day.

A request with a key is entered into the gateway's own bucket before anything is done, by a
`create` that one of two concurrent requests loses, whichever gateway they reach. The entry then
gets the answer, which every repeat is given; the stream drops it a day later. The same key with
another request is refused (422), one whose first request is still at work waits a while and is
told 409.

A first request that was cut off leaves its entry open: its outcome is not known. The next one
takes the entry over and does the call again *under the same nonce*, from which the owner makes
the id of a new resource; so a create that had happened is found, and not made twice. Actions ask
for a state (`power: running`), so that asking again changes nothing. Every step is a
compare-and-swap, so two that take over at once do no harm.

Keys belong to the token they came with. What is stored can't be read without that token: the
answer (it may be a new token) is sealed by a key made of both, and so is the request's digest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import ValidationError

from trivet.contracts.errors import (
    CONFLICT,
    INTERNAL,
    MALFORMED,
    ErrorBody,
    Fatal,
    FieldError,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.gateway.codes import KEY_IN_PROGRESS, KEY_REUSED
from trivet.contracts.model import Model
from trivet.gateway.limits import Limits
from trivet.runtime.clock import Clock
from trivet.runtime.store import Store

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
LOOK_AGAIN_S = 0.1
_KEY = re.compile(r"[ -~]{1,255}")
_NONCE_BYTES = 12
_SEEN_BOUND = 4096


class Answer(Model):
    """What a call was answered: the reply, or the refusal."""

    status: int = 200
    revision: int | None = None
    body: str = ""
    error: ErrorBody | None = None
    replayed: bool = False


class Entry(Model):
    """A key in the bucket. `open`: its request was cut off; `holder` is the gateway that has it
    at work, `life` that gateway's process, and after `lease_s` without a change it is dead."""

    state: Literal["held", "open", "done"]
    digest: str
    nonce: str
    holder: str
    life: str
    lease_s: float
    sealed: str = ""


@dataclass(frozen=True)
class Asked:
    """A request with a key: its place in the bucket, what it asks, and what seals its answer."""

    place: str
    digest: str
    seal: bytes


def read_key(header: str) -> str:
    """The key in the header. Raises `Refused(MALFORMED)`."""
    if not _KEY.fullmatch(header) or not header.strip():
        error = FieldError(where=HEADER, message="not a key", accepted="1-255 printable ASCII")
        raise Refused(MALFORMED, f"not accepted: {HEADER}", errors=(error,))
    return header


def asked(bearer: str, key: str, what: Mapping[str, Any]) -> Asked:
    """The request of `bearer` under `key`; `what` says what is asked, in plain JSON types."""
    both = f"{bearer}\0{key}".encode()
    seal = hashlib.sha256(b"trivet answer\0" + both).digest()
    text = json.dumps(what, sort_keys=True, ensure_ascii=True).encode()
    digest = hmac.new(seal, text, hashlib.sha256).hexdigest()
    return Asked(f"once.{hashlib.sha256(both).hexdigest()}", digest, seal)


class Answers:
    """The first answers of a day. `holder` is the same for every process of one gateway."""

    def __init__(self, store: Store, holder: str, clock: Clock, limits: Limits) -> None:
        self._store = store
        self._holder = holder
        self._life = secrets.token_hex(8)
        self._clock = clock
        self._limits = limits
        self._at_work: set[str] = set()
        self._seen: OrderedDict[tuple[str, int], float] = OrderedDict()

    async def once(
        self, what: Asked, lease_s: float, call: Callable[[str], Awaitable[Answer]]
    ) -> Answer:
        """The first answer under this key: that of `call`, which is given the nonce, or the one
        that was kept. Raises what `call` raises, and `Retry` as the store does."""
        give_up = self._clock.monotonic() + self._limits.key_wait_s
        nonce, revision = secrets.token_hex(8), 0
        while True:
            mine = Entry(
                state="held",
                digest=what.digest,
                nonce=nonce,
                holder=self._holder,
                life=self._life,
                lease_s=lease_s,
            )
            if taken := await self._take(what.place, mine, revision):
                return await self._work(what, mine, taken, call)
            found = await self._store.get(what.place)
            while found is not None:
                entry = _read(found.value, what)
                if entry.state == "done":
                    return _replayed(what, entry)
                if self._dead(entry, what.place, found.revision):
                    nonce = entry.nonce
                    break
                if self._clock.monotonic() >= give_up:
                    detail = "the first request under this key is still at work"
                    raise Retry(KEY_IN_PROGRESS, detail, hint="come again", retry_after_s=1)
                await self._clock.sleep(LOOK_AGAIN_S)
                found = await self._store.get(what.place)
            revision = found.revision if found else 0

    async def _take(self, place: str, mine: Entry, revision: int) -> int:
        """Enter the request; 0 where another one was faster."""
        value = mine.model_dump_json().encode()
        try:
            if revision:
                return await self._store.update(place, value, revision)
            return await self._store.create(place, value)
        except Refused as error:
            if error.code is not CONFLICT:
                raise
            return 0

    async def _work(
        self, what: Asked, mine: Entry, revision: int, call: Callable[[str], Awaitable[Answer]]
    ) -> Answer:
        self._at_work.add(what.place)
        left = mine.model_copy(update={"state": "open"})
        try:
            answer = await call(mine.nonce)
            left = _done(what, mine, answer)
            return answer
        except Refused as error:
            left = _done(what, mine, Answer(error=error.body()))
            raise
        finally:
            # The caller has its answer whatever becomes of this write: where it fails, the next
            # request under the key takes the entry over.
            try:
                await self._keep(what.place, left, revision)
            finally:
                self._at_work.discard(what.place)

    async def _keep(self, place: str, entry: Entry, revision: int) -> None:
        if len(entry.sealed) > self._limits.key_answer_bytes:
            entry = entry.model_copy(update={"state": "open", "sealed": ""})
        try:
            await self._store.update(place, entry.model_dump_json().encode(), revision)
        except TrivetError as error:
            log.warning("the answer under an idempotency key could not be kept: %s", error)

    def _dead(self, entry: Entry, place: str, revision: int) -> bool:
        """Whether nobody works on the entry any more."""
        if entry.state == "open":
            return True
        if entry.holder == self._holder:
            return entry.life != self._life or place not in self._at_work
        now = self._clock.monotonic()
        first = self._seen.setdefault((place, revision), now)
        while len(self._seen) > _SEEN_BOUND:
            self._seen.popitem(last=False)
        return now - first > entry.lease_s


def _read(value: bytes, what: Asked) -> Entry:
    """The entry, if it is of the same request."""
    try:
        entry = Entry.model_validate_json(value)
    except ValidationError as error:
        raise Fatal(INTERNAL, "what is kept under this key can't be read") from error
    if not hmac.compare_digest(entry.digest, what.digest):
        raise Refused(
            KEY_REUSED,
            f"{HEADER}: another request came under this key",
            hint="a new key for each new request",
        )
    return entry


def _done(what: Asked, mine: Entry, answer: Answer) -> Entry:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(what.seal).encrypt(nonce, answer.model_dump_json().encode(), None)
    text = base64.b64encode(nonce + sealed).decode()
    return mine.model_copy(update={"state": "done", "sealed": text})


def _replayed(what: Asked, entry: Entry) -> Answer:
    """The answer in an entry."""
    sealed = base64.b64decode(entry.sealed)
    try:
        plain = AESGCM(what.seal).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except InvalidTag as error:
        raise Fatal(INTERNAL, "what is kept under this key can't be read") from error
    return Answer.model_validate_json(plain).model_copy(update={"replayed": True})
