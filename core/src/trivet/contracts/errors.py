"""The one error tree, and the table of codes that never change once set.

Three things can be wrong: the caller asked for something that can't be (`Refused`), something
is not possible now and may be later (`Retry`), or Trivet or the machine is broken (`Fatal`).
Who catches an error decides by that class alone; who reads it gets a stable code, what was
wrong, where, and what would be accepted. It crosses the bus as an `ErrorBody` and leaves the
gateway as RFC 9457 problem details. A foreign exception is translated at the adapter that met
it, with `raise ... from`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trivet.contracts.model import Model


@dataclass(frozen=True)
class Code:
    """A stable error code, e.g. `volume.no_space`, its HTTP status and its title."""

    value: str
    http_status: int
    title: str


CODES: dict[str, Code] = {}


def code(value: str, http_status: int, title: str) -> Code:
    """Declare a code, once; a second declaration of the same value is our own bug."""
    if value in CODES:
        raise ValueError(f"error code {value} is declared twice")
    CODES[value] = Code(value, http_status, title)
    return CODES[value]


MALFORMED = code("request.malformed", 400, "The request is not well-formed")
INVALID = code("request.invalid", 422, "The request is well-formed but impossible")
UNAUTHENTICATED = code("auth.unauthenticated", 401, "No valid token was given")
FORBIDDEN = code("auth.forbidden", 403, "The caller may not do this")
NOT_FOUND = code("resource.not_found", 404, "No such resource")
NAME_TAKEN = code("resource.name_taken", 409, "The name is taken")
CONFLICT = code("resource.conflict", 409, "The resource was changed by somebody else")
REVISION = code("resource.revision_mismatch", 412, "The resource has another revision")
IN_USE = code("resource.in_use", 409, "The resource is in use")
DELETING = code("resource.deleting", 409, "The resource is being deleted")
IMMUTABLE = code("resource.immutable_field", 422, "The field can't be changed")
REFERENCE = code("resource.unknown_reference", 422, "A resource that is named does not exist")
TOO_MANY = code("request.too_many", 429, "Too many requests at once")
TIMEOUT = code("bus.timeout", 503, "No answer within the deadline")
UNAVAILABLE = code("bus.unavailable", 503, "The service is not reachable")
DENIED = code("bus.denied", 500, "The bus denied a publish: permissions are wrong")
REPLY_TOO_LARGE = code("bus.reply_too_large", 500, "The answer is larger than a message may be")
INTERNAL = code("internal", 500, "An internal error")
NOT_SUPPORTED = code("driver.not_supported", 422, "The driver can't do this")
DRIVER_FAILED = code("driver.failed", 500, "The driver failed")


class FieldError(Model):
    """One wrong field: where it is (dotted path), what is wrong, what would be accepted."""

    where: str
    message: str
    accepted: str | None = None


class ErrorBody(Model):
    """An error as it crosses the bus; never a traceback, never a secret."""

    kind: Literal["refused", "retry", "fatal"]
    code: str
    detail: str
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()
    retry_after_s: float | None = None


class TrivetError(Exception):
    """The root. `detail` says what and where, `hint` what would be accepted or what to do."""

    kind: Literal["refused", "retry", "fatal"] = "fatal"

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        hint: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code.value}: {detail}" + (f" ({hint})" if hint else ""))
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = errors
        self.retry_after_s = retry_after_s

    def body(self) -> ErrorBody:
        """This error as the value that crosses the bus."""
        return ErrorBody(
            kind=self.kind,
            code=self.code.value,
            detail=self.detail,
            hint=self.hint,
            errors=self.errors,
            retry_after_s=self.retry_after_s,
        )


class Refused(TrivetError):
    """The caller's fault, or a fact the caller can change. Repeating it alike is useless."""

    kind = "refused"


class Retry(TrivetError):
    """Not possible now; the same call may succeed later. Nothing was half-done."""

    kind = "retry"


class Fatal(TrivetError):
    """Trivet or the machine is broken here; somebody has to look."""

    kind = "fatal"


_KINDS: dict[str, type[TrivetError]] = {"refused": Refused, "retry": Retry, "fatal": Fatal}


def from_body(body: ErrorBody) -> TrivetError:
    """The error that `body` describes, to be raised again on this side of the bus.

    An unknown code (a newer peer's) keeps its kind and detail, as `internal`.
    """
    known = CODES.get(body.code, INTERNAL)
    return _KINDS[body.kind](
        known,
        body.detail,
        hint=body.hint,
        errors=body.errors,
        retry_after_s=body.retry_after_s,
    )
