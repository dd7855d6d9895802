"""`jobmaster jobs …` and `jobmaster stats`: look at jobs, and mend them."""

import shlex
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from jobmaster.cli.deeds import Conditions, Everything, Wait, Yes, carry_out, conditions
from jobmaster.cli.eventloop import run_async
from jobmaster.cli.render import counts_table, jobs_table, plain, print_job, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name, find_cluster
from jobmaster.model import portable
from jobmaster.model.errors import OptionInvalid
from jobmaster.model.states import JobState

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler

T = TypeVar("T")
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
MaybeId = Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")]

app = typer.Typer(help="Look at jobs, and mend them.", no_args_is_help=True)


def ask(
    target: tuple[str | None, Path | None, Path | None, str | None], question: Callable[["Scheduler"], Awaitable[T]]
) -> T:
    """Connect to the cluster, without a worker, ask, and leave."""

    async def connected() -> T:
        async with find_cluster(*target).connect() as scheduler:
            return await question(scheduler)

    return run_async(connected())


@app.command("list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
    handler: Annotated[str | None, typer.Option()] = None,
    lane: Annotated[str | None, typer.Option()] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option(help="Created after this ISO instant with an offset.")] = None,
    cursor: Annotated[str | None, typer.Option(help="From the page before.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    page = ask(
        (app, config, file, cluster),
        lambda scheduler: scheduler.list(
            state=state, handler=handler, lane=lane, tag=tag, since=instant(since), cursor=cursor, limit=limit
        ),
    )
    if as_json:
        print_json(page)
        return
    console = terminal()
    if page.jobs:
        console.print(jobs_table(page.jobs, datetime.now(UTC)))
    else:
        console.print("no job matches" if page.cursor is None else "no job on this page matches")
    if page.cursor is not None:
        console.print(f"more: --cursor {page.cursor}")
    for agent in page.unreachable:
        console.print(f"agent {agent} did not answer: its jobs may be missing here", style="yellow")


def instant(text: str | None, option: str = "--since") -> datetime | None:
    """An ISO instant with an offset. Raises `OptionInvalid`."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise OptionInvalid(option, text, "an ISO instant with an offset, such as 2026-11-22T08:00:00+00:00")
    return moment


@app.command()
def show(
    job_id: JobId,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Everything about one job: every run with its traceback, and what can be done."""
    job = ask((app, config, file, cluster), lambda scheduler: scheduler.get(job_id))
    if as_json:
        print_json(job)
        return
    console = terminal()
    print_job(console, job)
    where = " ".join(
        f"{option} {shlex.quote(str(value))}"
        for option, value in (("--app", app), ("--config", config), ("--file", file), ("--cluster", cluster))
        if value is not None
    )
    if job.state in {JobState.FAILED, JobState.CANCELLED}:
        console.print(f"\nrun it again:  jobmaster jobs retry {job.id} {where}".rstrip())
    elif not job.terminal:
        console.print(f"\nend it:  jobmaster jobs cancel {job.id} {where}".rstrip())


@app.command()
def cancel(
    job_id: MaybeId = None,
    where: Conditions = None,
    everything: Everything = False,
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """End jobs that have not ended; those that run are fenced and stopped. One by its id, or all that --where means."""
    target = (app, config, file, cluster)
    if _many(job_id, where, everything):
        meant = conditions(where)
        carry_out(
            target,
            "cancel",
            meant,
            lambda scheduler: scheduler.bulk.cancel(everything=everything, **meant),
            yes=yes,
            wait=wait,
            as_json=as_json,
            verb="cancel",
        )
        return
    result = ask(target, lambda scheduler: scheduler.cancel(_one(job_id)))
    if as_json:
        print_json(result)
    elif result.cancelled:
        typer.echo(f"cancelled {result.id}" + (", which was running" if result.was_running else ""))
    else:
        typer.echo(f"{result.id} had ended already: {result.state}")
    if not result.cancelled:
        raise typer.Exit(1)


@app.command()
def retry(
    job_id: MaybeId = None,
    where: Conditions = None,
    everything: Everything = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start the count of attempts anew.")] = False,
    rate: Annotated[float | None, typer.Option(help="With --where: at most so many a second.")] = None,
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Run failed or cancelled jobs again, now. One by its id, or all that --where means."""
    target = (app, config, file, cluster)
    if _many(job_id, where, everything):
        meant = conditions(where)
        carry_out(
            target,
            "retry",
            meant,
            lambda scheduler: scheduler.bulk.retry(fresh=fresh, per_second=rate, everything=everything, **meant),
            yes=yes,
            wait=wait,
            as_json=as_json,
            verb="run again",
        )
        return
    job = ask(target, lambda scheduler: scheduler.retry(_one(job_id), fresh=fresh))
    if as_json:
        print_json(job)
    else:
        typer.echo(f"{job.id} is {job.state} again; a worker runs it next")


@app.command()
def delete(
    job_id: MaybeId = None,
    where: Conditions = None,
    everything: Everything = False,
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Remove ended jobs and their runs from the history. One by its id, or all that --where means."""
    target = (app, config, file, cluster)
    if _many(job_id, where, everything):
        meant = conditions(where)
        carry_out(
            target,
            "delete",
            meant,
            lambda scheduler: scheduler.bulk.delete(everything=everything, **meant),
            yes=yes,
            wait=wait,
            as_json=as_json,
            verb="delete",
        )
        return
    wanted = _one(job_id)
    if not yes:
        typer.confirm(f"delete job {wanted}?", abort=True, err=True)
    ask(target, lambda scheduler: scheduler.delete(wanted))
    print_json({"id": wanted, "deleted": True}) if as_json else typer.echo(f"deleted {wanted}")


@app.command()
def update(
    job_id: JobId,
    lane: Annotated[str | None, typer.Option(help="Another lane.")] = None,
    priority: Annotated[str | None, typer.Option(help="Another priority, by name.")] = None,
    due: Annotated[str | None, typer.Option(help="Another due time: an ISO instant with an offset.")] = None,
    data: Annotated[str | None, typer.Option(help="Other data, as JSON.")] = None,
    version: Annotated[int | None, typer.Option(help="Only if it still is at this version.")] = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Change a job that waits."""
    given = {} if data is None else {"data": portable.decode(data.encode())}
    job = ask(
        (app, config, file, cluster),
        lambda scheduler: scheduler.update(
            job_id, lane=lane, priority=priority, when=instant(due, "--due"), expected_version=version, **given
        ),
    )
    if as_json:
        print_json(job)
    else:
        typer.echo(f"{job.id} is {job.state} in lane {job.lane}, {job.priority.name}, due {job.due_at.isoformat()}")


def _many(job_id: str | None, where: list[str] | None, everything: bool) -> bool:
    if (job_id is None) == (not where and not everything):
        raise typer.BadParameter("give either one job's ID, or --where (or --all)")
    return job_id is None


def _one(job_id: str | None) -> str:
    assert job_id is not None
    return job_id


def stats(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """How many jobs there are, per lane and state, and how long the oldest ready one has waited."""
    counts = ask((app, config, file, cluster), lambda scheduler: scheduler.counts())
    if as_json:
        print_json({"totals": {str(state): counts.total(state) for state in JobState}, **plain(counts)})
        return
    console = terminal()
    console.print(counts_table(counts) if counts.lanes else "no jobs yet")
    for agent in counts.unreachable:
        console.print(f"agent {agent} did not answer: its jobs are missing here", style="yellow")
    for agent in counts.quarantined:
        console.print(f"agent {agent} is in quarantine: nothing happens there; see jobmaster agents list", style="red")
