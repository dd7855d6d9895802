"""What the process writes about itself: structlog, as JSON lines or for a console, with secrets taken out.

Events are names (`loop.failed`), everything else is a key. Nothing here is called per job.
"""

import contextlib
import logging
import re
import sys
import threading
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_KEY = re.compile(r"password|passwd|secret|token|api[_-]?key|authorization|cookie|dsn", re.IGNORECASE)
OWN_KEYS = frozenset({"token", "last_token", "tokens", "idempotency_key"})
"""Fencing tokens are numbers that people look for in logs, not secrets. Only integers pass under these names."""

HIDDEN = "[hidden]"
_USER_INFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]*@")
_SECRET_PARAMETER = re.compile(
    r"(?P<name>(?:password|passwd|secret|token|api[_-]?key|authorization)\s*[=:]\s*)(?P<value>[^\s&,;'\"]+)",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text without what stands before the `@` of a URL and without the values of secret parameters."""
    if "@" in text:
        text = _USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    if "=" in text or ":" in text:
        text = _SECRET_PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
    return text


def _clean(key: str, value: Any) -> Any:
    if SECRET_KEY.search(key) and not (key in OWN_KEYS and isinstance(value, (int, type(None), list, tuple))):
        return HIDDEN
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _clean(str(name), inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean("", inner) for inner in value]
    if isinstance(value, BaseException):
        return redact(f"{type(value).__name__}: {value}")
    return value


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The structlog processor; the last before an event is rendered."""
    return {key: _clean(key, value) for key, value in event.items()}


class Lines:
    """A logger that writes lines. One that can't be written, as its reader has gone, is dropped: what is told of must
    not end because nobody listens."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def msg(self, message: str) -> None:
        # Looked up each time: a program, or a test, may put another one in its place.
        out = self._stream or sys.stderr
        with self._lock, contextlib.suppress(OSError, ValueError):
            out.write(f"{message}\n")
            out.flush()

    debug = info = warning = error = critical = exception = log = msg


def configure_unless_configured(form: Literal["auto", "console", "json"], level: str) -> None:
    """`configure_logging`, unless the program has configured structlog: then its choice stands."""
    if not structlog.is_configured():
        configure_logging(form, level)


def configure_logging(
    form: Literal["auto", "console", "json"] = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Write structlog's events to `stream`, standard error unless given. `auto`: for a console on a terminal, else as
    JSON lines. Replaces what the program had configured."""
    out = stream or sys.stderr
    lines = Lines(stream)
    console = form == "console" or (form == "auto" and out.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            hide_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
        # Loggers made at import must follow a program, or a test, that configures again.
        cache_logger_on_first_use=False,
    )
