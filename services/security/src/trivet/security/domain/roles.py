"""The roles that every cluster has. They can be bound, not changed."""

from __future__ import annotations

from collections.abc import Mapping

from trivet.contracts.security.identity import RoleSpec
from trivet.security.domain.access import ADMINISTRATOR

_READ = tuple(
    f"{noun}.{verb}"
    for noun in (
        "compute.*",
        "storage.*",
        "network.*",
        "gateway.*",
        "security.project",
        "security.security-group",
        "security.address-set",
        "security.alarm",
    )
    for verb in ("list", "get")
)

BUILTIN: Mapping[str, RoleSpec] = {
    ADMINISTRATOR: RoleSpec(
        permissions=("*",), description="Everything, also users and their rights"
    ),
    "operator": RoleSpec(
        permissions=(
            "compute.*",
            "storage.*",
            "network.*",
            "gateway.*",
            "security.security-group.*",
            "security.address-set.*",
            "security.project.*",
            "security.alarm.*",
            "security.user.list",
            "security.user.get",
            "security.role.list",
            "security.role.get",
            "security.audit.list",
        ),
        description="Runs the cluster; does not decide who may do what",
    ),
    "member": RoleSpec(
        permissions=(
            *_READ,
            "compute.vm.*",
            "compute.image.*",
            "storage.volume.*",
            "network.network.*",
            "network.port.*",
            "security.security-group.*",
            "security.address-set.*",
        ),
        description="Works with a project's resources",
    ),
    "viewer": RoleSpec(permissions=_READ, description="Sees a project's resources"),
}
