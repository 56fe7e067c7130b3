"""Options of the command line for the fields of a model, and back: pure.

A field that holds one value (text, number, yes or no, a choice) or a list of texts becomes an
option of its name; a size in MiB or GiB becomes an option that takes sizes (`memory_mib` is
`--memory 128MiB`). What is deeper is set by `--set path=value` or `--spec`. An option that was
not given says nothing: the defaults are the owner's, not the command line's.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from trivet.cli import yaml_text
from trivet.cli.sizes import parse_size
from trivet.contracts.compute.vm import DiskRequest, NicRequest
from trivet.contracts.model import GIB, MIB, Model

_SIZES = {"_gib": GIB, "_mib": MIB}
_FILE_MAX_BYTES = 4 * 1024 * 1024
_LONG_TEXT = 4096


@dataclass(frozen=True)
class FieldOption:
    """An option for one field: `type` is what the command line parses, `convert` makes of it
    what the field takes. `required`: the field has no default."""

    field: str
    names: tuple[str, ...]
    type: Any
    convert: Callable[[Any], Any]
    required: bool
    help: str


def field_options(
    model: type[Model], skip: Iterable[str] = (), *, objects: bool = False
) -> tuple[FieldOption, ...]:
    """The options for the fields of `model` that can have one; with `objects`, lists of objects
    have one too."""
    found = []
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        if objects and _is_list_of_objects(info.annotation):
            flag = "--" + name.replace("_", "-")
            told = "a list in JSON or YAML, or @FILE"
            found.append(FieldOption(name, (flag,), str, read_list, info.is_required(), told))
            continue
        if _is_long_text(info):
            flag, told = "--" + name.replace("_", "-"), "a text, or @FILE"
            found.append(FieldOption(name, (flag,), str, read_text, info.is_required(), told))
        elif option := _option(name, info.annotation, info.is_required(), info.description or ""):
            found.append(option)
    return tuple(found)


def _option(name: str, annotation: Any, required: bool, text: str) -> FieldOption | None:
    flag = "--" + name.replace("_", "-")
    plain = _plain(annotation)
    for suffix, unit in _SIZES.items():
        if name.endswith(suffix) and plain is int:
            stem = "--" + name.removesuffix(suffix).replace("_", "-")
            return FieldOption(
                name, (stem, flag), str, partial(parse_size, unit_bytes=unit), required, "a size"
            )
    if plain is bool:
        both = f"{flag}/--no-{flag[2:]}"
        return FieldOption(name, (both,), bool, _same, required, text)
    if plain in (int, float, str):
        return FieldOption(name, (flag,), plain, _same, required, text)
    if plain is datetime:
        return FieldOption(name, (flag,), str, _same, required, "as in 2030-01-31T12:00:00Z")
    if isinstance(plain, type) and issubclass(plain, Enum):
        return FieldOption(name, (flag,), plain, lambda v: v.value, required, text)
    if get_origin(plain) is tuple and _plain(get_args(plain)[0]) is str:
        names = tuple(dict.fromkeys((singular(flag), flag)))
        return FieldOption(name, names, list[str], list, required, "may be given several times")
    return None


def singular(plural: str) -> str:
    """The word for one of them: an option that is given once a value is named so, too."""
    if plural.endswith(("sses", "xes", "ches")):
        return plural.removesuffix("es")
    return plural.removesuffix("ies") + "y" if plural.endswith("ies") else plural.removesuffix("s")


def _is_long_text(info: FieldInfo) -> bool:
    """A text that nobody types on a command line."""
    bounds = [getattr(bound, "max_length", None) or 0 for bound in info.metadata]
    return _plain(info.annotation) is str and max(bounds, default=0) >= _LONG_TEXT


def _is_list_of_objects(annotation: Any) -> bool:
    plain = _plain(annotation)
    of = get_args(plain)[0] if get_origin(plain) is tuple else None
    return isinstance(of, type) and issubclass(of, Model)


def _plain(annotation: Any) -> Any:
    """The type without None and annotations; None where it has several alternatives."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        some = [a for a in get_args(annotation) if a is not types.NoneType]
        return _plain(some[0]) if len(some) == 1 else None
    return annotation


def _same(value: Any) -> Any:
    return value


def parse_setting(text: str) -> tuple[tuple[str, ...], Any]:
    """`path=value`: the path's parts, and the value read as YAML. Raises `ValueError`."""
    path, equals, value = text.partition("=")
    parts = tuple(path.split("."))
    if not equals or not all(parts):
        raise ValueError(f"{text!r} is not path=value, as in placement.strength=prefer")
    try:
        return parts, yaml_text.load(value)
    except yaml_text.Unreadable as error:
        raise ValueError(f"{path}: the value is not YAML") from error


def put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set the value at a path, making the objects on the way. Raises `ValueError`."""
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ValueError(f"{'.'.join(path)}: {part} is not an object")  # noqa: TRY004
    values[path[-1]] = value


def read_object(text: str) -> dict[str, Any]:
    """An object in YAML or JSON, itself or from `@file`. Raises `ValueError`."""
    value = _read(text)
    if not isinstance(value, dict):
        raise ValueError('not an object, as in {"vcpus": 2}')  # noqa: TRY004
    return value


def read_list(text: str) -> list[Any]:
    """A list in YAML or JSON, itself or from `@file`. Raises `ValueError`."""
    value = _read(text)
    if not isinstance(value, list):
        raise ValueError('not a list, as in [{"protocol": "tcp"}]')  # noqa: TRY004
    return value


def read_text(text: str) -> str:
    """A text, itself or from `@file`. Raises `ValueError`."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        with path.open() as file:
            return file.read(_FILE_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _read(text: str) -> Any:
    try:
        return yaml_text.load(read_text(text))
    except yaml_text.Unreadable as error:
        raise ValueError("neither JSON nor YAML") from error


def parse_labels(given: Iterable[str]) -> dict[str, str | None]:
    """`key=value` sets a label, `key-` removes it. Raises `ValueError`."""
    labels: dict[str, str | None] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals and not text.endswith("-"):
            raise ValueError(f"{text!r} is not key=value, nor key- to remove a label")
        labels[key if equals else text[:-1]] = value if equals else None
    return labels


def parse_disks(given: Iterable[str]) -> list[dict[str, Any]]:
    """`SIZE[,replicas=2][,name=data]...` each. Raises `ValueError`."""
    disks = []
    for number, text in enumerate(given):
        size, values = _parts(text, DiskRequest)
        disk = {"name": f"disk{number}", **values} if number else values
        disks.append(_checked(DiskRequest, {"size_gib": parse_size(size, GIB), **disk}, text))
    return disks


def parse_nics(given: Iterable[str], groups: list[str]) -> list[dict[str, Any]]:
    """`NETWORK[,address=10.0.0.5]` each; all stand behind `groups`. Raises `ValueError`."""
    behind = {"security_groups": groups} if groups else {}
    nics = []
    for text in given:
        network, values = _parts(text, NicRequest)
        nics.append(_checked(NicRequest, {"network": network, **behind, **values}, text))
    return nics


def _parts(text: str, model: type[Model]) -> tuple[str, dict[str, Any]]:
    """The first word, and the rest as `key=value`, or `key` alone for yes."""
    first, *rest = text.split(",")
    values: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if key not in model.model_fields:
            known = ", ".join(model.model_fields)
            raise ValueError(f"{text!r}: there is no {key}; there are {known}")
        values[key] = yaml_text.load(value) if equals else True
    return first.strip(), values


def _checked(model: type[Model], values: dict[str, Any], text: str) -> dict[str, Any]:
    try:
        return model.model_validate(values).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{text!r}: {where}: {first['msg']}") from error
