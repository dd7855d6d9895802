"""`job.log`: a handler's own lines, sent to the process's log and kept, the last of them, for the run's record."""

from collections import deque
from typing import Any

import structlog

from jobmaster.model.job import Job

KEPT_LINES = 50
KEPT_CHARACTERS = 500


class JobLog:
    """A small logger. May be called from any thread; never raises because of what it is given."""

    __slots__ = ("_bound", "_kept")

    def __init__(self, job: Job, worker: str) -> None:
        self._bound = structlog.get_logger("jobmaster.job").bind(
            job_id=job.id, handler=job.handler, attempt=job.attempt, lane=job.lane, worker=worker
        )
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first, each `level: event key=value …`, cut visibly."""
        return tuple(self._kept)

    def debug(self, event: str, /, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self._kept.append(_line(level, event, fields))
        try:
            getattr(self._bound, level)(event, **fields)
        except Exception as error:
            # A field named like one of ours, or a value that cannot be rendered, must not fail the job.
            self._kept.append(_line("warning", "line not logged", {"because": type(error).__name__}))


def _line(level: str, event: object, fields: dict[str, Any]) -> str:
    parts = [f"{level}: {_shown(event)}"]
    parts += [f"{key}={_shown(value)}" for key, value in fields.items()]
    line = " ".join(parts)
    return line if len(line) <= KEPT_CHARACTERS else f"{line[:KEPT_CHARACTERS]}… ({len(line):,} characters)"


def _shown(value: object) -> str:
    try:
        text = str(value)
    except Exception:
        return f"<{type(value).__name__} whose str fails>"
    # Lone surrogates and NUL are characters no store could keep.
    return text.encode("utf-8", "replace").decode().replace("\x00", "\\x00")
