"""What the server says, on stderr: as text for people, or one JSON object a line for machines.

The standard library's logging, because uvicorn and every library the environments use speak it; a
formatter of a few lines is all that structured lines need. Texts of actions and keys are never logged.
"""

import json
import logging
import time
from contextvars import ContextVar
from enum import StrEnum
from typing import Any

__all__ = [
    "JsonFormatter",
    "LogFormat",
    "RequestFilter",
    "current_request_id",
    "log_config",
    "note_request",
    "note_session",
]

current_request_id: ContextVar[str] = ContextVar("steppo_request_id", default="")
"""The id of the request that is being answered; empty outside of one."""
_sessions: ContextVar[dict[str, str] | None] = ContextVar("steppo_sessions", default=None)
"""What is known of the session that a request is about; None where requests are not told apart."""
SEVERAL = "(several)"

FACTS = (
    "request_id",
    "session_id",
    "environment",
    "method",
    "path",
    "status",
    "duration_s",
)
"""Members of a record (`extra=`) that a line shows beside its message."""


class LogFormat(StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    """For people: level and message."""
    JSON = "json"
    """One JSON object a line."""


def note_request(request_id: str, *, is_one: bool) -> None:
    """Say which request is being answered in this context.

    Args:
        is_one: False for a socket, over which many requests come.
    """
    current_request_id.set(request_id)
    _sessions.set({} if is_one else None)


def note_session(session_id: str, environment: str) -> None:
    """Say which session the request is about."""
    noted = _sessions.get()
    if noted is None:
        return
    for fact, value in (("session_id", session_id), ("environment", environment)):
        if noted.setdefault(fact, value) != value:
            noted[fact] = SEVERAL


class RequestFilter(logging.Filter):
    """Notes on each record which request it belongs to, and which session that is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = current_request_id.get()
        if request_id:
            record.request_id = request_id
        for fact, value in (_sessions.get() or {}).items():
            setattr(record, fact, value)
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger, pid, message, facts, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{_utc(record.created)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= {fact: getattr(record, fact) for fact in FACTS if hasattr(record, fact)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _utc(unix_time: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_time))


def log_config(level: str, log_format: LogFormat) -> dict[str, Any]:
    """Return logging's configuration: everything on stderr, this server's own messages from `level`.

    Args:
        level: Such as "info".
    """
    text = {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s"}
    formatter = {"()": JsonFormatter} if log_format is LogFormat.JSON else text
    own = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request": {"()": RequestFilter}},
        "formatters": {"line": formatter},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": ["request"],
            }
        },
        # What libraries and environments log looks the same.
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"uvicorn": own, "steppo": own},
    }
