"""Alarms to a webhook: one POST of JSON for each change of an alarm.

The body is an `AlarmNotice`; its `key` is also the header `Idempotency-Key`, since the same
notice can come again. Taken is what is answered with 2xx. Secrets (a bearer token) are in a file
of their own, never in the settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from trivet.contracts.alarm_sink import AlarmNotice, AlarmSink
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, INVALID, UNAVAILABLE, Fatal, Refused, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model

if TYPE_CHECKING:
    import httpx

TEMPORARY = frozenset({408, 425, 429})


class WebhookConfig(Model):
    """`url` is posted to; `token_file` holds a bearer token (0600), `ca_file` the authority to
    trust instead of the system's."""

    url: str = Field(pattern=r"^https?://[!-~]+$")
    token_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=25)


class Webhook:
    """Posts notices to one address."""

    name: ClassVar[str] = "webhook"
    Config: ClassVar[type[Model]] = WebhookConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: WebhookConfig = config
        self._http: httpx.AsyncClient | None = None

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere; it is used where settings name it."""
        return Probe(usable=True, reason="posts to the address of its configuration")

    async def open(self) -> None:
        """Read the token. Raises `Fatal` where that can't be."""
        import httpx  # late: it is large, and seldom needed

        headers = {}
        if self._config.token_file is not None:
            try:
                token = self._config.token_file.read_text().strip()
            except OSError as error:
                raise Fatal(DRIVER_FAILED, f"webhook: token_file: {error}") from error
            headers["Authorization"] = f"Bearer {token}"
        verify = str(self._config.ca_file) if self._config.ca_file else True
        try:
            self._http = httpx.AsyncClient(
                headers=headers, timeout=self._config.timeout_s, verify=verify
            )
        except OSError as error:
            raise Fatal(DRIVER_FAILED, f"webhook: ca_file: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def tell(self, notice: AlarmNotice) -> None:
        """Post the notice."""
        import httpx  # late: it is large, and seldom needed

        assert self._http is not None, "opened before use"
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.key}
        try:
            answer = await self._http.post(
                self._config.url, content=notice.model_dump_json(), headers=headers
            )
        except httpx.HTTPError as error:
            detail = f"webhook: {type(error).__name__}: {error}"
            raise Retry(UNAVAILABLE, detail) from error
        if answer.is_success:
            return
        detail = f"webhook: answered {answer.status_code}"
        if answer.status_code >= 500 or answer.status_code in TEMPORARY:
            raise Retry(UNAVAILABLE, detail)
        raise Refused(INVALID, detail, hint="see [plugins.webhook] url and token_file")


@hookimpl
def trivet_alarm_sinks() -> list[type[AlarmSink]]:
    """The webhook."""
    return [Webhook]
