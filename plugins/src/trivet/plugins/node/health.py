"""Checks of a node's processes, the gateway's certificate, and the clock."""

from __future__ import annotations

import ctypes
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509

from trivet.contracts.compute.node_check import CheckResult, NodeCheck
from trivet.contracts.driver import DriverContext, NoConfig, Probe
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model

FAILURES_IN_A_ROW = 3
TIME_ERROR = 5


class ProcessesConfig(Model):
    """Where the supervisor tells how its processes are, and where their logs are."""

    status_file: Path = Path("/run/trivet/status.json")
    logs: Path = Path("/var/log/trivet")


class Processes:
    """Whether the node's processes run; no answer where nothing of ours supervises them (in
    containers their own engine does)."""

    name: ClassVar[str] = "processes"
    Config: ClassVar[type[Model]] = ProcessesConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: ProcessesConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere."""
        return Probe(usable=True, reason="reads what the supervisor tells")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def look(self) -> tuple[CheckResult, ...]:
        """One answer for all of them."""
        try:
            told = json.loads(self._config.status_file.read_text())
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            detail = f"{self._config.status_file}: {error}"
            return (CheckResult(type="Processes", ok=None, reason="Unreadable", detail=detail),)
        if told.get("stage") != "running":
            return ()
        found = told.get("processes", {})
        bad = [name for name, process in found.items() if self._bad(process)]
        message = ""
        if bad:
            logs = ", ".join(str(self._config.logs / f"{name}.log") for name in bad)
            message = f"{', '.join(bad)} ends again and again, or does not get ready; see {logs}"
        detail = ", ".join(
            f"{name} {'ready' if p.get('ready') else 'not ready'}" for name, p in found.items()
        )
        return (
            CheckResult(
                type="Processes",
                ok=not bad,
                reason="Failing" if bad else "Running",
                message=message,
                detail=detail,
            ),
        )

    def _bad(self, process: dict[str, Any]) -> bool:
        failing = int(process.get("failures") or 0) >= FAILURES_IN_A_ROW
        return not process.get("ready") and (failing or process.get("pid") is None)


class CertificateConfig(Model):
    """The gateway's certificate; None where it has none. It expires `soon_days` before its
    end, as far as people are told."""

    file: Path | None = None
    soon_days: int = 21


def certificate_result(file: Path, now: datetime, soon: timedelta) -> CheckResult:
    """How the certificate in a file is."""
    try:
        pem = file.read_bytes()
        ends = min(c.not_valid_after_utc for c in x509.load_pem_x509_certificates(pem))
    except (OSError, ValueError) as error:
        message = f"the certificate {file} can't be read: {error}"
        return CheckResult(type="Certificate", ok=False, reason="Expired", message=message)
    detail = f"{file} is good until {ends:%Y-%m-%d %H:%M} UTC"
    if ends <= now:
        message = f"the certificate {file} expired at {ends:%Y-%m-%d %H:%M} UTC"
        return CheckResult(
            type="Certificate", ok=False, reason="Expired", message=message, detail=detail
        )
    if ends <= now + soon:
        message = f"the certificate {file} expires at {ends:%Y-%m-%d %H:%M} UTC"
        return CheckResult(
            type="Certificate", ok=False, reason="Expiring", message=message, detail=detail
        )
    return CheckResult(type="Certificate", ok=True, reason="Good", detail=detail)


class Certificate:
    """Whether the gateway's certificate is good for a while."""

    name: ClassVar[str] = "certificate"
    Config: ClassVar[type[Model]] = CertificateConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: CertificateConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere."""
        return Probe(usable=True, reason="reads the gateway's certificate")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def look(self) -> tuple[CheckResult, ...]:
        """One answer, where there is a certificate."""
        if self._config.file is None:
            return ()
        soon = timedelta(days=self._config.soon_days)
        return (certificate_result(self._config.file, datetime.now(UTC), soon),)


class _Timex(ctypes.Structure):
    """The kernel's `struct timex`, as far as it is read here, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


class Clock:
    """Whether anything keeps the clock right. That nothing does is no fault of itself: it is
    told, and the skew between nodes is judged by who hears their beats."""

    name: ClassVar[str] = "clock"
    Config: ClassVar[type[Model]] = NoConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    @classmethod
    async def probe(cls) -> Probe:
        """Where the C library has adjtimex."""
        usable = hasattr(ctypes.CDLL(None), "adjtimex")
        return Probe(usable=usable, reason="asks the kernel (adjtimex)")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def look(self) -> tuple[CheckResult, ...]:
        """One answer."""
        state = self._libc.adjtimex(ctypes.byref(_Timex()))
        if state in (-1, TIME_ERROR):
            detail = "no NTP client keeps this clock right, as far as the kernel knows"
            return (CheckResult(type="Clock", ok=None, reason="NotKept", detail=detail),)
        return (CheckResult(type="Clock", ok=True, reason="Kept", detail="kept right by NTP"),)


@hookimpl
def trivet_node_checks() -> list[type[NodeCheck]]:
    """Processes, certificate, clock."""
    return [Processes, Certificate, Clock]
