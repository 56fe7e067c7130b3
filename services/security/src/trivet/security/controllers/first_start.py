"""What a cluster has from its first start: built-in roles, a project, an administrator.

The user is made last, and everything else is found again by name, so a start that was cut
anywhere is done over; once there is a user nothing is made any more, whatever was deleted
since. The administrator's token is what the token file says; where the file is not there yet it
is written first, so that a token in force is never one that nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import stat
from pathlib import Path

from trivet.contracts.access import CLUSTER
from trivet.contracts.errors import INVALID, NAME_TAKEN, Fatal, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, OwnerRef, Phase, ResourceT
from trivet.contracts.security.group import SecurityGroup
from trivet.contracts.security.identity import (
    Project,
    ProjectSpec,
    ProjectStatus,
    Role,
    RoleBinding,
    RoleSpec,
    RoleStatus,
    Token,
    TokenSpec,
    TokenStatus,
    User,
    UserSpec,
    UserStatus,
)
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.security.controllers.default_groups import make_default_group
from trivet.security.domain.roles import BUILTIN
from trivet.security.domain.tokens import SECRET_BYTES, TokenText, parse
from trivet.security.parts import People

log = logging.getLogger(__name__)

PROJECT_NAME = "default"
USER_NAME = "admin"
TOKEN_NAME = "first"
PRIVATE = 0o600
TOKEN_FILE_CHARS = 4096


class FirstStart:
    """Makes what every cluster begins with."""

    def __init__(self, runtime: Runtime, people: People, groups: Collection[SecurityGroup]) -> None:
        self._runtime = runtime
        self._people = people
        self._groups = groups

    async def run(self) -> None:
        """Make what is missing, then rest: a new version may bring new roles at its start."""
        for name, spec in BUILTIN.items():
            await self._role(name, spec)
        if not self._people.users.list():
            await self._begin()
        await asyncio.Event().wait()

    async def _role(self, name: str, spec: RoleSpec) -> None:
        status = RoleStatus(phase=Phase.READY, observed_generation=1, builtin=True)
        await _make(
            self._people.roles, Role(meta=self._meta("role", name), spec=spec, status=status)
        )

        def renew(role: Role) -> Role:
            newer = role.with_spec(spec)
            return newer.with_status(builtin=True, observed_generation=newer.meta.generation)

        await self._people.roles.mutate(self._people.roles.kind.key(None, name), renew)

    async def _begin(self) -> None:
        file = self._runtime.settings.security.bootstrap_token_file
        if file is None:
            log.warning("nobody can use this cluster: security.bootstrap_token_file is not set")
            return
        text = await asyncio.to_thread(token_in, file)
        await _make(
            self._people.projects,
            Project(
                meta=self._meta("project", PROJECT_NAME),
                spec=ProjectSpec(description="The project that is there from the start"),
                status=ProjectStatus(phase=Phase.READY, observed_generation=1),
            ),
        )
        await make_default_group(self._runtime, self._groups, PROJECT_NAME)
        await self._administrator(text)
        log.info("made the user %s, whose token is in %s", USER_NAME, file)

    async def _administrator(self, text: TokenText) -> None:
        # The user's id follows from the token, so that the token can name it before it is there.
        meta = self._meta("user", USER_NAME).model_copy(
            update={"id": ResourceId(f"user-{text.part}")}
        )
        user = User(
            meta=meta,
            spec=UserSpec(
                roles=(RoleBinding(role="admin", project=CLUSTER),),
                description="The first administrator",
            ),
            status=UserStatus(phase=Phase.READY, observed_generation=1),
        )
        tokens = self._people.tokens
        old = await tokens.fresh(tokens.kind.key(None, TOKEN_NAME))
        if old is not None and (old.meta.id, old.status.hash) != (text.id, text.hash):
            # Of a start that was cut and whose file is gone.
            await tokens.remove(old)
        await _make(tokens, self._token(text, user))
        await _make(self._people.users, user)

    def _token(self, text: TokenText, user: User) -> Token:
        owner = OwnerRef(kind=user.kind, id=user.meta.id, project=None, name=user.meta.name)
        return Token(
            meta=self._meta("token", TOKEN_NAME).model_copy(update={"id": text.id, "owner": owner}),
            spec=TokenSpec(user=USER_NAME, description="Made at the first start"),
            status=TokenStatus(phase=Phase.READY, observed_generation=1, hash=text.hash),
        )

    def _meta(self, kind: str, name: str, project: str | None = None) -> Meta:
        now = self._runtime.clock.now()
        return Meta(id=new_id(kind), name=name, project=project, created_at=now)


async def _make(collection: Collection[ResourceT], resource: ResourceT) -> None:
    """Create it, unless there is one of that name."""
    try:
        await collection.create(resource)
    except Refused as error:
        if error.code is not NAME_TAKEN:
            raise


def token_in(file: Path) -> TokenText:
    """The token in `file`; a file that is not there is made, whole or not at all (0600).

    Raises `Fatal(INVALID)` where it holds something else, or where others could read it: a
    token that somebody else may have seen must not become the administrator's.
    """
    if not file.exists():
        made = TokenText(secrets.token_hex(8), secrets.token_urlsafe(SECRET_BYTES))
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.new")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"{made.text}\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(file)
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as stream:
        facts = os.fstat(stream.fileno())
        text = parse(stream.read(TOKEN_FILE_CHARS).strip())
    if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077 or facts.st_uid != os.geteuid():
        hint = f"it must be a file of this service's own; chmod 600 {file}"
        raise Fatal(INVALID, f"{file} is open to others, so its token is not used", hint=hint)
    if text is None:
        raise Fatal(INVALID, f"{file} holds no token", hint="trv_<16 hex>_<secret>; or remove it")
    return text
