"""The base of every model, and the small types that all of them share.

Models are frozen and refuse unknown fields: a change is a new value, and a misspelt field is
told, not dropped. Names are DNS labels, since they become store keys, host names and devices.
"""

from __future__ import annotations

from typing import Annotated, NewType

from pydantic import BaseModel, ConfigDict, StringConstraints

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""A DNS label: 1-63 of a-z, 0-9 and '-', not at either end."""

LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9_./]{0,61}[a-z0-9])?$")]
LabelValue = Annotated[str, StringConstraints(max_length=63, pattern=r"^[ -~]*$")]

ResourceId = NewType("ResourceId", str)
"""`<kind>-<16 hex>`: unique for ever, never reused, never parsed."""

NodeName = NewType("NodeName", str)

GIB = 1024**3
MIB = 1024**2


class Model(BaseModel):
    """Frozen, strict about unknown fields; serialised as JSON on the bus and in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)
