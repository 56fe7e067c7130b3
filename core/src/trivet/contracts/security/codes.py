"""The error codes of the security service."""

from trivet.contracts.errors import code

AUDIT_BROKEN = code("audit.broken", 500, "The audit trail was changed behind Trivet's back")
QUOTA = code("project.quota_exceeded", 409, "The project has no more of this")
LAST_ADMIN = code("user.last_admin", 409, "The last administrator can't be removed")
