"""Commands made from the endpoint declarations: `trivet <noun> <verb>`, one an operation.

Required fields of an operation are arguments after NAME, the others options; a spec's fields are
options of create and edit (`specs`). What only one kind can say in a nicer way (a VM's disks) is
a `Composite`: some options, and the part of the spec that they amount to.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from trivet.cli.output import Format, print_model, print_resources
from trivet.cli.session import Output, Project, WaitOption, connected, usage
from trivet.cli.specs import (
    FieldOption,
    field_options,
    parse_disks,
    parse_labels,
    parse_nics,
    parse_setting,
    put,
    read_object,
)
from trivet.cli.waiting import Wait
from trivet.client import Client
from trivet.client.client import build_request
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import CreateRequest, EditRequest, Endpoint, ListRequest
from trivet.contracts.model import Model
from trivet.contracts.resource import Resource, Scope

Endpoints = Mapping[str, Endpoint[Any, Any]]
_VERBS = {"get": "show"}
_NOT_OPTIONS = frozenset({"project", "name", "settle_s", "missing_ok", "revision", "owner"})
_PAGE = 1000


@dataclass(frozen=True)
class Composite:
    """Options, by parameter name with their flags, and what they make of the spec."""

    options: Mapping[str, tuple[str, str]]
    fields: Callable[[dict[str, list[str]]], dict[str, Any]]


def _vm_parts(given: dict[str, list[str]]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    if given["disk"]:
        parts["disks"] = parse_disks(given["disk"])
    if given["network"]:
        parts["nics"] = parse_nics(given["network"], given["security_group"])
    elif given["security_group"]:
        raise ValueError("--security-group goes with --network")
    return parts


COMPOSITES: Mapping[str, Composite] = {
    "vm": Composite(
        {
            "disk": ("--disk", "SIZE[,replicas=2][,name=data], several times; the first boots."),
            "network": ("--network", "NETWORK[,address=10.0.0.5]; several times."),
            "security_group": ("--security-group", "Groups that all its cards stand behind."),
        },
        _vm_parts,
    )
}


def verb_name(endpoint: Endpoint[Any, Any]) -> str:
    """The verb of the command line."""
    return _VERBS.get(endpoint.verb, endpoint.verb)


def make_command(endpoint: Endpoint[Any, Any], siblings: Endpoints) -> Callable[..., None]:
    """The command of an operation; `siblings` are those of the same noun, by verb."""
    if issubclass(endpoint.request, ListRequest):
        return _list_command(endpoint)
    parameters = [*_place(endpoint)]
    whole = issubclass(endpoint.request, (CreateRequest, EditRequest))
    parts = frozenset({"kind", "meta", "spec", "labels"}) if whole else frozenset[str]()
    options = field_options(endpoint.request, _NOT_OPTIONS | parts, objects=not whole)
    composite: Composite | None = None
    spec: tuple[FieldOption, ...] = ()
    if issubclass(endpoint.request, (CreateRequest, EditRequest)):
        assert endpoint.kind is not None
        composite = COMPOSITES.get(endpoint.kind.name)
        spec = field_options(endpoint.kind.spec_model)
        parameters += [_parameter(o, optional=True) for o in spec]
        parameters += _composite_parameters(composite) + _SPEC_PARAMETERS
    parameters += [_parameter(option) for option in options]
    if "revision" in endpoint.request.model_fields:
        parameters.append(_REVISION)
    get = siblings.get("get")
    if endpoint.settles and get is not None:
        parameters.append(_plain_parameter("wait_s", WaitOption))
    parameters.append(_plain_parameter("output", Output, Format.TABLE))

    def run(**given: Any) -> None:
        with usage():
            fields = _fields(endpoint, given, options, spec, composite)
        with connected() as client:
            request = build_request(endpoint, given.get("name"), fields, client.project)
            answer = client.call(endpoint, request)
            answer = _waited(client, endpoint, get, answer, given.get("wait_s"))
        if answer is not None:
            print_model(answer, given["output"])

    return _with_signature(run, parameters, endpoint.summary)


def _list_command(endpoint: Endpoint[Any, Any]) -> Callable[..., None]:
    in_project = endpoint.kind is not None and endpoint.kind.scope is Scope.PROJECT
    parameters = [_plain_parameter("label", _LABEL_FILTER)]
    if in_project:
        parameters += [_plain_parameter("project", Project)]
        parameters += [_plain_parameter("all_projects", _ALL, False)]
    parameters.append(_plain_parameter("output", Output, Format.TABLE))

    def run(**given: Any) -> None:
        fields: dict[str, Any] = {"limit": _PAGE}
        if given["label"]:
            fields["label"] = given["label"]
        if given.get("project") or given.get("all_projects"):
            fields["project"] = None if given["all_projects"] else given["project"]
        items: list[Any] = []
        missing: set[str] = set()
        with connected() as client:
            while True:
                page = client.call(endpoint, build_request(endpoint, None, fields, client.project))
                items += page.items
                missing.update(page.missing)
                if page.cursor is None:
                    break
                fields["cursor"] = page.cursor
        print_resources(endpoint.noun, items, given["output"])
        if missing:
            silent = ", ".join(sorted(missing))
            print(f"trivet: not answering, and not in this list: {silent}", file=sys.stderr)
            raise typer.Exit(1)

    return _with_signature(run, parameters, endpoint.summary)


def _fields(
    endpoint: Endpoint[Any, Any],
    given: Mapping[str, Any],
    options: Iterable[FieldOption],
    spec: Iterable[FieldOption],
    composite: Composite | None,
) -> dict[str, Any]:
    """The fields of the request that was given on the command line. Raises `ValueError`."""
    fields = _converted(given, options)
    if given.get("project"):
        fields["project"] = given["project"]
    if given.get("revision") is not None:
        fields["revision"] = given["revision"]
    if issubclass(endpoint.request, (CreateRequest, EditRequest)):
        asked = read_object(given["spec"]) if given["spec"] else {}
        asked |= _converted(given, spec)
        if composite is not None:
            asked |= composite.fields({name: given[name] or [] for name in composite.options})
        for text in given["settings"] or []:
            path, value = parse_setting(text)
            put(asked, path, value)
        fields["spec"] = asked
        if given["label"]:
            fields["labels"] = parse_labels(given["label"])
    return fields


def _converted(given: Mapping[str, Any], options: Iterable[FieldOption]) -> dict[str, Any]:
    values = ((o, given[o.field]) for o in options)
    return {o.field: o.convert(v) for o, v in values if v is not None and v != []}


def _waited(
    client: Client,
    endpoint: Endpoint[Any, Any],
    get: Endpoint[Any, Any] | None,
    answer: Model,
    wait_s: float | None,
) -> Model | None:
    """The answer once it is as asked; None where it is gone, as asked."""
    if wait_s is None or get is None or not isinstance(answer, Resource):
        return answer
    wait = Wait(client, get, answer, wait_s)
    if endpoint.verb == "delete":
        wait.gone()
        return None
    settled = wait.settled()
    runs = isinstance(settled, Vm) and settled.spec.image and settled.spec.power == "running"
    boots = runs and endpoint.verb in ("create", "start")
    return wait.guest_ready() if boots else settled


def _place(endpoint: Endpoint[Any, Any]) -> list[inspect.Parameter]:
    """NAME, and where the resource is."""
    found = []
    request = endpoint.request
    if "name" in request.model_fields or issubclass(request, CreateRequest):
        found.append(
            _plain_parameter("name", Annotated[str, typer.Argument(metavar="NAME")], _NONE)
        )
    if endpoint.http and "{project}" in endpoint.http.path:
        found.append(_plain_parameter("project", Project))
    return found


def _parameter(option: FieldOption, *, optional: bool = False) -> inspect.Parameter:
    if option.required and not optional:
        metavar = option.field.upper().replace("_", "-")
        argument = typer.Argument(metavar=metavar, help=option.help)
        return _plain_parameter(option.field, Annotated[option.type, argument], _NONE)
    told = typer.Option(*option.names, help=option.help, show_default=False)
    return _plain_parameter(option.field, Annotated[option.type | None, told])


def _composite_parameters(composite: Composite | None) -> list[inspect.Parameter]:
    if composite is None:
        return []
    return [
        _plain_parameter(name, Annotated[list[str] | None, typer.Option(flag, help=text)])
        for name, (flag, text) in composite.options.items()
    ]


_NONE = inspect.Parameter.empty


def _plain_parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


_LABEL_FILTER = Annotated[str | None, typer.Option("--label", "-l", help="Only these: key=value.")]
_ALL = Annotated[bool, typer.Option("--all-projects", "-A", help="Those of all projects.")]
_REVISION = _plain_parameter(
    "revision",
    Annotated[int | None, typer.Option("--if-revision", help="Only if it still has this one.")],
)
_SPEC_PARAMETERS = [
    _plain_parameter(
        "label", Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value")]
    ),
    _plain_parameter(
        "spec", Annotated[str | None, typer.Option("--spec", help="The spec: JSON, or @FILE.")]
    ),
    _plain_parameter(
        "settings",
        Annotated[list[str] | None, typer.Option("--set", help="path=value, deep in the spec.")],
    ),
]


def _with_signature(
    run: Callable[..., None], parameters: Iterable[inspect.Parameter], summary: str
) -> Callable[..., None]:
    """`run`, as if it had been written with these parameters."""
    ordered = sorted(parameters, key=lambda p: p.default is not _NONE)
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in ordered}
    run.__doc__ = summary
    return run


def add_commands(
    app: typer.Typer, endpoints: Iterable[Endpoint[Any, Any]], groups: dict[str, typer.Typer]
) -> None:
    """Add a group for every noun, and a command for every operation offered over HTTP. A
    command of that name that a group already has stays."""
    offered = [e for e in endpoints if e.http is not None and e.http.stream is None]
    by_noun: dict[str, dict[str, Endpoint[Any, Any]]] = {}
    for endpoint in offered:
        by_noun.setdefault(endpoint.noun, {})[endpoint.verb] = endpoint
    for noun, siblings in sorted(by_noun.items()):
        kinds = {e.kind.summary for e in siblings.values() if e.kind and e.kind.name == noun}
        group = groups.get(noun) or typer.Typer(no_args_is_help=True)
        taken = {command.name for command in group.registered_commands}
        for endpoint in siblings.values():
            if verb_name(endpoint) not in taken:
                group.command(verb_name(endpoint))(make_command(endpoint, siblings))
        app.add_typer(group, name=noun, help=next(iter(kinds), f"The {noun} of the cluster."))
