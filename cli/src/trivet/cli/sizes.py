"""Sizes as people write them: `128MiB`, `1.5GiB`, `2T`; a bare number is in the field's unit."""

from __future__ import annotations

import re
from fractions import Fraction

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-zA-Z]*)")
_UNITS: dict[str, int] = {"b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _UNITS[_letter] = _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power


def parse_size(text: str, unit_bytes: int) -> int:
    """How many units `text` is. Raises `ValueError` with what would be accepted; a size that is
    no whole number of units is an error, since rounding would give something else than asked."""
    match = _SIZE.fullmatch(text.strip())
    unit = match and (_UNITS.get(match[2].lower()) if match[2] else unit_bytes)
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size; as in 128MiB, 1GiB, 2TiB")
    size = Fraction(match[1]) * unit / unit_bytes
    if size.denominator != 1:
        raise ValueError(f"{text} is not a whole number of {_unit_name(unit_bytes)}")
    return int(size)


def _unit_name(unit_bytes: int) -> str:
    return {1024**2: "MiB", 1024**3: "GiB"}.get(unit_bytes, f"{unit_bytes} bytes")
