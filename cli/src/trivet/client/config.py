"""Where the API is and by which token: the configuration of the CLI and of other clients.

A small TOML file that only its owner can read, `~/.config/trivet/config.toml`; `TRIVET_CONFIG`
names another. `TRIVET_URL` and `TRIVET_TOKEN` go before what it says. Under sudo it is the file
of the person before sudo, since `trivet up` wrote it there.
"""

from __future__ import annotations

import json
import os
import pwd
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from trivet.contracts.errors import Refused, code
from trivet.contracts.model import Model, Name

BAD_CONFIG = code("client.bad_config", 400, "The client's configuration can't be used")
DEFAULT_URL = "https://127.0.0.1:8443"


Url = Annotated[str, Field(pattern=r"^https?://[!-~]+$")]


class ClientConfig(Model):
    """`other_urls`: gateways of the same cluster, for when that at `url` can't be reached.
    `ca_file`: the certificate authority to trust (None: the system's). `project`: where commands
    act that name none."""

    url: Url = DEFAULT_URL
    other_urls: tuple[Url, ...] = ()
    token: str | None = Field(default=None, repr=False)
    ca_file: Path | None = None
    project: Name = "default"


def config_file(env: Mapping[str, str]) -> Path:
    """The path of the configuration file."""
    if named := env.get("TRIVET_CONFIG"):
        return Path(named)
    return _home(env) / ".config" / "trivet" / "config.toml"


def load_config(env: Mapping[str, str] = os.environ) -> ClientConfig:
    """The configuration; a file that is not there is an empty one. Raises `Refused`."""
    path = config_file(env)
    try:
        values = tomllib.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise Refused(BAD_CONFIG, f"{path} can't be read: {error}") from error
    for name in ("url", "token"):
        if given := env.get(f"TRIVET_{name.upper()}"):
            values[name] = given
    if env.get("TRIVET_URL"):
        values.pop("other_urls", None)  # of another cluster, as far as anybody knows
    try:
        return ClientConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refused(BAD_CONFIG, f"{where} in {path}: {first['msg']}") from error


def save_config(config: ClientConfig, path: Path) -> None:
    """Write the configuration, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    values = config.model_dump(mode="json", exclude_none=True)
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _home(env: Mapping[str, str]) -> Path:
    user = env.get("SUDO_USER")
    if user and os.geteuid() == 0:
        try:
            return Path(pwd.getpwnam(user).pw_dir)
        except KeyError:
            pass
    return Path(env["HOME"]) if env.get("HOME") else Path.home()
