"""Logs as one JSON object a line on stderr: time, level, service, where, message, trace."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

TraceId = Callable[[], str | None]


def _no_trace() -> str | None:
    return None


class _Traces:
    """Who knows the present trace: nobody, before traces are made."""

    present: TraceId = staticmethod(_no_trace)


def tell_traces(present: TraceId | None) -> None:
    """Name in each line the trace that `present` gives (32 hex digits); None: name none."""
    _Traces.present = staticmethod(present or _no_trace)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; a traceback is a field, never extra lines."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (trace_id := _Traces.present()) is not None:
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logs(service: str, level: str) -> None:
    """Send all logs of this process to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
