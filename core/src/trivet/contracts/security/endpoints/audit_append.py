"""Append to the audit trail."""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model
from trivet.contracts.security.audit import AuditEntry


class AppendRequest(Model):
    """Entries in order. Each `request_id` is recorded once, however often it is sent."""

    entries: tuple[AuditEntry, ...] = Field(max_length=1000)


class AppendResponse(Model):
    """The sequence number of the last one."""

    last_seq: int


ENDPOINT = Endpoint(
    service="security",
    op="audit.append",
    request=AppendRequest,
    response=AppendResponse,
    policy=INTERNAL,
    summary="Append to the audit trail.",
)
