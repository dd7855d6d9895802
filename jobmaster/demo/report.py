"""The table at the end: what the batch came to, read back from the audit history."""

import os
import shlex
import shutil
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobmaster.cli.render import inert
from jobmaster.demo.census import Census
from jobmaster.model.states import JobState
from jobmaster.views import JobInfo

LARGEST = 5


def duration(job: JobInfo) -> timedelta | None:
    """From first start to finish."""
    if job.first_started_at is None or job.finished_at is None:
        return None
    return job.finished_at - job.first_started_at


async def print_report(
    console: Console, census: Census, batch: str, skipped: Counter[str], ticks: int, file: Path
) -> None:
    """Everything below comes from the history, none of it from memory."""
    jobs = [job async for job in census.jobs(batch)]
    files = [job for job in jobs if job.handler == "read-file"]
    console.print(_results(files, skipped, ticks))
    console.print(_largest(files))
    for job in files:
        if job.state is JobState.SUCCEEDED and job.attempts > 0:
            console.print(f"retried: {_name(job)} succeeded at attempt {job.attempts + 1}", markup=False)
        elif job.state is JobState.FAILED:
            text = f"dead letter: {_name(job)} ended failed({job.reason}): {inert(job.error or '')}"
            console.print(text, markup=False)
    films = sorted(
        (job for job in jobs if job.handler == "develop-film"),
        key=lambda job: (job.finished_at is None, job.finished_at),
    )
    console.print(
        "films in the order they finished: " + ", ".join(f"{film.title} ({film.priority.name})" for film in films)
    )
    console.print(_further(file, next((job.id for job in files if job.state is JobState.FAILED), None)), markup=False)


def _name(job: JobInfo) -> str:
    return inert(Path(str(job.data["path"])).name)


def _results(files: list[JobInfo], skipped: Counter[str], ticks: int) -> Table:
    table = Table(title="Results, from the audit history", show_header=False)
    states = Counter(job.state for job in files)
    for state, count in states.items():
        table.add_row(f"files {state}", f"{count:,}")
    read = [job.result for job in files if isinstance(job.result, dict)]
    for what in ("bytes", "lines", "tokens"):
        table.add_row(what, f"{sum(result[what] for result in read):,}")
    for reason, count in skipped.items():
        table.add_row(f"left out: {reason}", f"{count:,}")
    finished = [job.finished_at for job in files if job.finished_at]
    started = [job.first_started_at for job in files if job.first_started_at]
    if finished and started:
        seconds = (max(finished) - min(started)).total_seconds()
        table.add_row("first start to last finish", f"{seconds:.1f} s")
    lasted = [taken.total_seconds() for job in files if job.attempts == 0 and (taken := duration(job)) is not None]
    if lasted:
        table.add_row("one file, median", f"{median(lasted) * 1000:.1f} ms")
    table.add_row("ticks of the schedule", f"{ticks}")
    return table


def _largest(files: list[JobInfo]) -> Table:
    table = Table(title=f"The {LARGEST} largest files")
    for heading in ("file", "bytes", "lines", "tokens"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    read = [(job, job.result) for job in files if isinstance(job.result, dict)]
    for job, result in sorted(read, key=lambda pair: -pair[1]["bytes"])[:LARGEST]:
        table.add_row(Text(_name(job)), *(f"{result[what]:,}" for what in ("bytes", "lines", "tokens")))
    return table


def _further(file: Path, failed: str | None) -> str:
    asked = ["jobs list --state failed"]
    if failed:
        asked += [f"jobs show {failed}", f"jobs retry {failed}"]
    asked.append("stats")
    command, where = _command(), shlex.quote(str(file))
    return "look further:\n" + "\n".join(f"  {command} {what} --file {where}" for what in asked)


def _command() -> str:
    """How this command is called in the reader's shell: in a virtual environment it may not be on the path."""
    here = Path(sys.argv[0])
    if here.name != "jobmaster":
        return f"{shlex.quote(sys.executable)} -m jobmaster"
    found = shutil.which("jobmaster")
    if found is not None and Path(found).resolve() == here.resolve():
        return "jobmaster"
    return shlex.quote(os.path.relpath(here))
