"""Check the whole audit trail against its hash chain."""

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http, Nothing
from trivet.contracts.model import Model


class VerifyReport(Model):
    """`intact`, or where (`first_bad_seq`) and how it is broken."""

    intact: bool
    records: int
    head: str
    first_bad_seq: int | None = None
    reason: str = ""


ENDPOINT = Endpoint(
    service="security",
    op="audit.verify",
    request=Nothing,
    response=VerifyReport,
    policy=needs("security.audit.list"),
    summary="Check the audit trail against its hash chain.",
    http=Http("POST", "/v1/audit:verify"),
    changes=False,
    timeout_s=60.0,
)
