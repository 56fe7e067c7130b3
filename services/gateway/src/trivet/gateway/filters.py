"""Which events a subscriber gets: the subject it asked for, and what it may see. Pure.

A subject is the event's type without `trivet.`: `compute.vm.started.v1`, with `*` for one word and
`>` for the rest; what is shorter than a whole type stands for all below it (`compute.vm`). An
event is seen by who may `get` the resource it speaks of.
"""

from __future__ import annotations

import re

from trivet.contracts.access import Caller, allowed, needs
from trivet.contracts.errors import MALFORMED, FieldError, Refused
from trivet.contracts.event import SUBJECT_PREFIX, CloudEvent

_WORD = re.compile(r"[A-Za-z0-9_-]{1,63}|\*")
_WORDS = 4
_SEQ = re.compile(r"[0-9]{1,18}")


def bus_subject(subject: str | None) -> str:
    """The bus subject, with wildcards, for the subject that a subscriber asked for."""
    words = (">" if subject is None else subject).removeprefix("trivet.").split(".")
    rest = words[-1] == ">"
    named = words[:-1] if rest else words
    if len(named) > _WORDS or not all(_WORD.fullmatch(word) for word in named):
        raise _wrong("subject", "not a subject", "compute.>, compute.vm.*, compute.vm.started.v1")
    if rest or len(named) < _WORDS:
        named = [*named, ">"]
    return ".".join((SUBJECT_PREFIX, *named))


def first_seq(since: str | None, last_event_id: str | None) -> int | None:
    """The sequence number to begin with: after the last one that was had (`Last-Event-ID`),
    else from `since` on; None is from now on."""
    if last_event_id:
        if not _SEQ.fullmatch(last_event_id):
            raise _wrong("Last-Event-ID", "not the id of an event", "a number")
        return int(last_event_id) + 1
    if since is None:
        return None
    if not _SEQ.fullmatch(since):
        raise _wrong("since", "not a sequence number", "a number")
    return max(1, int(since))


def visible(event: CloudEvent, caller: Caller, project: str | None) -> bool:
    """Whether `caller` may see the event and, with `project`, asked for it."""
    if project is not None and event.data.project != project:
        return False
    _, service, noun, *_ = event.type.split(".")
    return allowed(caller, needs(f"{service}.{noun}.get"), event.data.project)


def _wrong(where: str, message: str, accepted: str) -> Refused:
    error = FieldError(where=where, message=message, accepted=accepted)
    return Refused(MALFORMED, f"not accepted: {where}", errors=(error,))
