"""Alarms by mail (SMTP): one message for each change of an alarm.

The subject line has severity, state and title; the text has cause and remedy. The notice's key
makes the Message-ID, so that one that comes twice is shown once by most readers. The password
is in a file of its own, never in the settings.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from trivet.contracts.alarm import AlarmState
from trivet.contracts.alarm_sink import AlarmNotice, AlarmSink
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import INVALID, UNAVAILABLE, Refused, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model

TIMEOUT_S = 10.0


class MailConfig(Model):
    """The mail server and the addresses. `password_file` (0600) goes with `user`."""

    host: str
    port: int = Field(default=25, ge=1, le=65535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    ca_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    sender: str = Field(pattern=r"^[^\s@]+@[^\s@]+$")
    recipients: tuple[str, ...] = Field(min_length=1, max_length=50)


def letter(notice: AlarmNotice, config: MailConfig) -> EmailMessage:
    """The notice as a mail."""
    mail = EmailMessage()
    mail["From"], mail["To"] = config.sender, ", ".join(config.recipients)
    word = "cleared" if notice.state is AlarmState.CLEARED else notice.severity.value
    subject = notice.subject.name or notice.subject.kind
    mail["Subject"] = f"[trivet {word}] {notice.title}: {subject}"
    mail["Message-ID"] = f"<{notice.key.replace('/', '.')}@trivet>"
    at = (notice.cleared_at or notice.raised_at).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [
        f"{notice.cause}.",
        "",
        f"What to do: {notice.remedy}",
        "",
        f"Alarm {notice.name} ({notice.rule}) of {notice.service}, {notice.state} at {at}.",
        f"trivet alarm show {notice.name}",
    ]
    mail.set_content("\n".join(lines))
    return mail


class Mail:
    """Mails notices."""

    name: ClassVar[str] = "smtp"
    Config: ClassVar[type[Model]] = MailConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: MailConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere; it is used where settings name it."""
        return Probe(usable=True, reason="mails over the server of its configuration")

    async def open(self) -> None:
        """Connections are made when there is something to tell."""

    async def close(self) -> None:
        """Nothing is kept open."""

    async def tell(self, notice: AlarmNotice) -> None:
        """Send the mail; taken is what the server accepted for all recipients."""
        try:
            await asyncio.to_thread(self._send, letter(notice, self._config))
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused) as error:
            raise Refused(INVALID, f"smtp: {error}", hint="see [plugins.smtp]") from error
        except smtplib.SMTPResponseException as error:
            detail = f"smtp: {error.smtp_code} {error.smtp_error!r}"
            if 400 <= error.smtp_code < 500:
                raise Retry(UNAVAILABLE, detail) from error
            raise Refused(INVALID, detail, hint="see [plugins.smtp]") from error
        except (OSError, smtplib.SMTPException) as error:
            raise Retry(UNAVAILABLE, f"smtp: {error}") from error

    def _send(self, mail: EmailMessage) -> None:
        config = self._config
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.security == "tls":
            link: smtplib.SMTP = smtplib.SMTP_SSL(
                config.host, config.port, timeout=TIMEOUT_S, context=context
            )
        else:
            link = smtplib.SMTP(config.host, config.port, timeout=TIMEOUT_S)
        with link:
            if config.security == "starttls":
                link.starttls(context=context)
            if config.user and config.password_file:
                link.login(config.user, config.password_file.read_text().strip())
            link.send_message(mail)


@hookimpl
def trivet_alarm_sinks() -> list[type[AlarmSink]]:
    """Mail."""
    return [Mail]
