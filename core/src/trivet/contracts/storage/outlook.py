"""Outlook: what would become of volumes if a host or a disk failed now."""

from __future__ import annotations

from enum import StrEnum

from trivet.contracts.model import Model


class Effect(StrEnum):
    """What a failure would do. `nothing`: as many good copies are left as now. `redundancy`: fewer
    are left. `unavailable`: none is left until what failed is back. `lost`: none is left."""

    NOTHING = "nothing"
    REDUNDANCY = "redundancy"
    UNAVAILABLE = "unavailable"
    LOST = "lost"


class Outlook(Model):
    """If that disk of that node failed now, or (`disk` '') the node: the effect, how many good
    copies would be left, and a sentence."""

    node: str
    disk: str = ""
    effect: Effect
    good_left: int
    message: str
