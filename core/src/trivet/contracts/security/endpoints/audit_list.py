"""Read the audit trail."""

from pydantic import Field

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http
from trivet.contracts.model import Model
from trivet.contracts.security.audit import AuditRecord


class AuditListRequest(Model):
    """From `since_seq` on, or the last `limit`."""

    since_seq: int | None = Field(default=None, ge=1)
    limit: int = Field(default=100, ge=1, le=1000)


class AuditPage(Model):
    """Records in order of `seq`."""

    records: tuple[AuditRecord, ...]


ENDPOINT = Endpoint(
    service="security",
    op="audit.list",
    request=AuditListRequest,
    response=AuditPage,
    policy=needs("security.audit.list"),
    summary="Read the audit trail.",
    http=Http("GET", "/v1/audit"),
    changes=False,
)
