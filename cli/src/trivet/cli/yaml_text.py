"""YAML and JSON as people and programs hand them over, read and written quickly: pure.

A security group of ten thousand rules is a megabyte. The YAML reader in Python takes nine
seconds for that, libyaml's one and a half, and where the text is JSON there is a reader for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

Unreadable = yaml.YAMLError

# libyaml is in every wheel; a build from source may lack it.
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: type[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load(text: str) -> Any:
    """The value that a text of YAML or JSON means. Raises `Unreadable`."""
    found, value = _json(text)
    return value if found else yaml.load(text, Loader=_Loader)


def load_all(text: str) -> Iterator[Any]:
    """The values of the documents in a text. Raises `Unreadable`."""
    found, value = _json(text)
    if found:
        yield value
    else:
        yield from yaml.load_all(text, Loader=_Loader)


def dump(value: Any) -> str:
    """A value of plain types as YAML, in its own order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _json(text: str) -> tuple[bool, Any]:
    """Whether the text is an object or a list in JSON, and what it means."""
    if text.lstrip()[:1] not in ("{", "["):
        return False, None
    try:
        return True, json.loads(text, parse_constant=_refuse)
    except ValueError:
        return False, None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
