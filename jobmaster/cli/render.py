"""How values look on a terminal and as JSON."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobmaster.model.states import FailReason, JobState

if TYPE_CHECKING:
    from jobmaster.views import Counts, JobInfo, RunInfo

LONGEST_LINE = 1_000_000
SHOWN_IN_LIST = 100
STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
    JobState.RUNNING: "cyan",
}


def terminal() -> Console:
    """Standard output, for text of which only our own markup is meant: no emoji codes, no guessed highlights. Lines are
    as long as they are: the terminal wraps them, and `grep` and `cut` find them whole."""
    return Console(soft_wrap=True, width=LONGEST_LINE, emoji=False, highlight=False)


def plain(value: Any) -> Any:
    """Views as JSON values: instants in ISO 8601, durations in seconds, priorities by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (JobState, FailReason)) or (isinstance(value, Enum) and isinstance(value.value, str)):
        return value.value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """One JSON document, safe for a terminal."""
    typer.echo(json.dumps(plain(value), ensure_ascii=True, indent=2))


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, or in how long, in one unit."""
    seconds = (now - moment).total_seconds()
    text, sign = abs(seconds), "ago" if seconds >= 0 else "from now"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if text >= size:
            return f"{text / size:.0f} {unit} {sign}"
    return f"{text:.0f} s {sign}"


def megabytes(count: int | None) -> str:
    """Memory, for people."""
    return "" if count is None else f"{count / 1_048_576:,.0f} MB"


def brief(text: str) -> str:
    """What fits into one line of a list."""
    return text if len(text) <= SHOWN_IN_LIST else f"{text[:SHOWN_IN_LIST]}…"


def jobs_table(jobs: "tuple[JobInfo, ...]", now: datetime) -> Table:
    """One line a job; ids whole, so that they can be copied."""
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "handler", "lane", "state", "att", "created", "title or error"):
        table.add_column(heading)
    for job in jobs:
        state = f"{job.state}({job.reason})" if job.reason else str(job.state)
        table.add_row(
            job.id,
            escape(job.handler),
            escape(job.lane),
            f"[{STYLES.get(job.state, 'default')}]{state}[/]",
            str(job.attempts),
            ago(job.created_at, now),
            escape(inert(brief(job.error or job.title or ""))),
        )
    return table


def counts_table(counts: "Counts") -> Table:
    """Lanes down, states across."""
    states = [state for state in JobState if counts.total(state)]
    table = Table(box=None, pad_edge=False)
    table.add_column("lane")
    for state in states:
        table.add_column(str(state), justify="right", style=STYLES.get(state))
    table.add_column("oldest ready", justify="right")
    for name, lane in sorted(counts.lanes.items()):
        waited = "" if lane.oldest_ready is None else f"{lane.oldest_ready.total_seconds():.1f} s"
        table.add_row(escape(name), *(f"{lane.states.get(state, 0):,}" for state in states), waited)
    return table


def print_job(console: Console, job: "JobInfo") -> None:
    """Everything about a job: facts, data, result, and each run with its traceback and last log lines."""
    state = f"{job.state}({job.reason})" if job.reason else str(job.state)
    rows: dict[str, Any] = {
        "id": job.id,
        "state": state,
        "handler": job.handler,
        "title": job.title,
        "lane, priority": f"{job.lane}, {job.priority.name}",
        "agent": job.agent,
        "worker": job.worker,
        "schedule": job.schedule,
        "tags": ", ".join(job.tags) or None,
        "metadata": json.dumps(plain(job.metadata)) if job.metadata else None,
        "created": job.created_at.isoformat(),
        "due": job.due_at.isoformat(),
        "originally due": job.original_due_at.isoformat() if job.original_due_at != job.due_at else None,
        "first start": job.first_started_at.isoformat() if job.first_started_at else None,
        "finished": job.finished_at.isoformat() if job.finished_at else None,
        "failed attempts": f"{job.attempts} of {job.max_attempts}",
        "progress": f"{job.progress} % {job.progress_note or ''}".strip() if job.progress is not None else None,
        "data": json.dumps(plain(job.data)),
        "result": json.dumps(plain(job.result)) if job.result is not None else None,
        "error": job.error,
    }
    for name, value in rows.items():
        if value is not None:
            # No table: that would pad every line to the length of the longest, which may be that of the data.
            console.print(f"{name:<15}  {inert(str(value))}", markup=False)
    for run in job.runs:
        print_run(console, run)


def print_run(console: Console, run: "RunInfo") -> None:
    """One run, with all that was recorded of it."""
    lasted = "" if run.duration is None else f", {run.duration.total_seconds():.3f} s"
    console.print(
        f"\n[bold]run {run.epoch}.{run.claim}[/] attempt {run.attempt}: {run.outcome}{lasted}, "
        f"{escape(run.worker)} on {escape(run.host)}, {run.finished_at.isoformat()}"
    )
    if run.note:
        console.print(f"  {escape(inert(run.note))}")
    if run.progress is not None:
        console.print(f"  progress {run.progress} % {escape(inert(run.progress_note or ''))}")
    for line in run.log:
        console.print(f"  log: {escape(inert(line))}")
    if run.traceback:
        console.print(escape(inert(run.traceback.rstrip(), keep="\n\t")), style="red")
    elif run.error_type:
        console.print(f"  {escape(inert(run.error_type))}: {escape(inert(run.message or ''))}", style="red")


def inert(text: str, keep: str = "") -> str:
    """Text from a job as it may reach a terminal: control and direction marks become visible escapes."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
