"""Which acts on a VM's power are possible, and what each makes of the power that is wanted.

One table: the act, and the power wanted so far. An act that is there already in effect changes
nothing and succeeds. What can't be (nothing paused can begin as paused: a pause keeps the
memory of a run) is refused, saying what would be accepted.
"""

from __future__ import annotations

from enum import StrEnum

from trivet.contracts.compute.vm import WantedPower
from trivet.contracts.errors import INVALID, Refused


class Verb(StrEnum):
    """What a user can do to a VM's power."""

    START = "start"
    STOP = "stop"
    SUSPEND = "suspend"
    RESUME = "resume"


_R, _S, _P = WantedPower.RUNNING, WantedPower.STOPPED, WantedPower.PAUSED

TRANSITIONS: dict[tuple[Verb, WantedPower], WantedPower | None] = {
    (Verb.START, _R): _R,
    (Verb.START, _S): _R,
    (Verb.START, _P): _R,
    (Verb.STOP, _R): _S,
    (Verb.STOP, _S): _S,
    (Verb.STOP, _P): _S,
    (Verb.SUSPEND, _R): _P,
    (Verb.SUSPEND, _S): None,
    (Verb.SUSPEND, _P): _P,
    (Verb.RESUME, _R): _R,
    (Verb.RESUME, _S): None,
    (Verb.RESUME, _P): _R,
}
"""None: refused."""

_HINTS = {
    Verb.SUSPEND: "a stopped VM has no memory to keep: start it first",
    Verb.RESUME: "a stopped VM is started, not resumed",
}


def after(verb: Verb, wanted: WantedPower) -> WantedPower:
    """The power that is wanted after `verb`; raises `Refused(INVALID)`."""
    result = TRANSITIONS[verb, wanted]
    if result is None:
        raise Refused(INVALID, f"can't {verb} a VM that is {wanted}", hint=_HINTS[verb])
    return result


def edited(before: WantedPower | None, wanted: WantedPower) -> WantedPower:
    """The same for a spec that asks for `wanted` outright; `before` None: a new VM."""
    if wanted is _P and before is None:
        hint = "running or stopped: nothing runs yet that could be paused"
        raise Refused(INVALID, "a new VM can't be paused", hint=hint)
    if wanted is _P and before is not None:
        return after(Verb.SUSPEND, before)
    return wanted
