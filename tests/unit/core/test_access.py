"""Who may do what: a table."""

import pytest

from trivet.contracts.access import (
    AUTHENTICATED,
    INTERNAL,
    PUBLIC,
    Audience,
    Caller,
    Grant,
    Policy,
    allowed,
    needs,
    service_caller,
)


def caller(*grants: tuple[str, str]) -> Caller:
    return Caller(
        user="ada", grants=tuple(Grant(project=p, permissions=(what,)) for p, what in grants)
    )


NOBODY = None
ANY = caller()
MEMBER = caller(("lab", "compute.vm.*"))
VIEWER = caller(("lab", "*.*.get"))
ADMIN = caller(("*", "*"))
START = needs("compute.vm.start")

TABLE = [
    (NOBODY, PUBLIC, None, True),
    (NOBODY, AUTHENTICATED, None, False),
    (NOBODY, START, "lab", False),
    (ANY, AUTHENTICATED, None, True),
    (ANY, START, "lab", False),
    (MEMBER, START, "lab", True),
    (MEMBER, START, "shop", False),
    (MEMBER, START, None, False),
    (MEMBER, needs("storage.volume.get"), "lab", False),
    (VIEWER, needs("storage.volume.get"), "lab", True),
    (VIEWER, START, "lab", False),
    (ADMIN, START, "lab", True),
    (ADMIN, needs("compute.node.edit"), None, True),
    (ADMIN, INTERNAL, None, False),
    (service_caller("compute"), INTERNAL, None, True),
]


@pytest.mark.parametrize(("who", "policy", "project", "expected"), TABLE)
def test_allowed(who: Caller | None, policy: Policy, project: str | None, expected: bool) -> None:
    assert allowed(who, policy, project) is expected


def test_a_permission_goes_with_its_audience_only() -> None:
    with pytest.raises(ValueError, match="permission"):
        Policy(Audience.PERMITTED)
    with pytest.raises(ValueError, match="permission"):
        Policy(Audience.PUBLIC, "compute.vm.start")
