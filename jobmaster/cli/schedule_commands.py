"""`jobmaster schedules list` and the like: the schedules of a cluster, shown and changed."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.eventloop import run_async
from jobmaster.cli.jobs import ask, instant
from jobmaster.cli.render import ago, brief, inert, plain, print_json, terminal
from jobmaster.cli.schedules import app as app
from jobmaster.cli.schedules import print_ticks
from jobmaster.cli.target import App, Config, File, Json, Name, find_cluster

if TYPE_CHECKING:
    from jobmaster.schedule_views import OccurrenceInfo, ScheduleChange, ScheduleDiff, ScheduleInfo, TickPreview
    from jobmaster.scheduler import Scheduler

    Shown = tuple[ScheduleInfo, Sequence[TickPreview], Sequence[OccurrenceInfo]]

TICKS_SHOWN = 5
OCCURRENCES_SHOWN = 10

Key = Annotated[str, typer.Argument(metavar="KEY", help="The schedule's key.")]


@app.command("list")
def list_schedules(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """All schedules, by key."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.schedules())
    if as_json:
        print_json(found)
        return
    terminal().print(_table(found, datetime.now(UTC)) if found else "no schedules yet")


@app.command()
def show(
    key: Key, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Everything about one schedule: its terms, its next ticks, and what came of the latest ones."""

    async def everything(scheduler: "Scheduler") -> "Shown":
        return (
            await scheduler.schedule(key),
            await scheduler.next_ticks(key, TICKS_SHOWN),
            await scheduler.occurrences(key, limit=OCCURRENCES_SHOWN),
        )

    schedule, ticks, occurrences = ask((app, config, file, cluster), everything)
    if as_json:
        print_json({**plain(schedule), "next": plain(ticks), "occurrences": plain(occurrences)})
        return
    console = terminal()
    for name, value in plain(schedule).items():
        if value not in (None, [], {}, ""):
            console.print(f"{name:<12}  {inert(str(value))}", markup=False)
    typer.echo("\nnext ticks")
    print_ticks(ticks)
    if occurrences:
        console.print(_occurrences(occurrences))


@app.command()
def pause(
    key: Key, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """No tick until it is resumed. What was planned ahead is withdrawn."""
    _change((app, config, file, cluster), lambda scheduler: scheduler.pause_schedule(key), as_json, "paused")


@app.command()
def resume(
    key: Key, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Go on with the first tick after now; a pause never replays."""
    _change((app, config, file, cluster), lambda scheduler: scheduler.resume_schedule(key), as_json, "active")


@app.command()
def cancel(
    key: Key, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """End a schedule that was made at run time, and withdraw its ticks that wait."""
    _change((app, config, file, cluster), lambda scheduler: scheduler.cancel_schedule(key), as_json, "ended")


@app.command("run-now")
def run_now(
    key: Key, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Enqueue the schedule's job now, beside its ticks."""
    handle = ask((app, config, file, cluster), lambda scheduler: scheduler.run_schedule(key))
    print_json({"id": handle.id}) if as_json else typer.echo(handle.id)


@app.command()
def backfill(
    key: Key,
    since: Annotated[str, typer.Option(help="ISO instant with an offset: the first tick may be at it.")],
    until: Annotated[str | None, typer.Option(help="ISO instant: every tick is before it; default: now.")] = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Make the jobs of past ticks that have none; they are due at once."""
    start = instant(since, "--since")
    assert start is not None, "required"
    end = instant(until, "--until") or datetime.now(UTC)
    filled = ask((app, config, file, cluster), lambda scheduler: scheduler.backfill(key, start, end))
    if as_json:
        print_json(filled)
    else:
        typer.echo(f"{filled.planned} jobs made; {filled.present} ticks had theirs")


@app.command()
def diff(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """What a start of this program would change about the schedules that its code declares. Exit code 1 if anything."""

    async def compared() -> "ScheduleDiff":
        found = find_cluster(app, config, file, cluster)
        async with found.connect() as scheduler:
            return await scheduler.schedule_diff(found.declared)

    found = run_async(compared())
    if as_json:
        print_json(found)
    else:
        for sign, keys, note in (
            ("+", found.added, ""),
            ("~", found.changed, ""),
            ("+", found.revived, "  comes back"),
            ("-", found.retiring, "  ends after retire_after"),
        ):
            for key in keys:
                terminal().print(f"{sign} {inert(key)}{note}", markup=False)
        for key, owner in found.conflicts:
            terminal().print(f"! {inert(key)}  belongs to {owner or 'what was made at run time'}", markup=False)
        if not found.anything:
            typer.echo("no difference")
    if found.anything:
        raise typer.Exit(1)


def _change(
    target: tuple[str | None, Path | None, Path | None, str | None],
    call: "Callable[[Scheduler], Awaitable[ScheduleChange]]",
    as_json: bool,
    now: str,
) -> None:
    change = ask(target, call)
    if as_json:
        print_json(change)
        return
    console = terminal()
    if change.schedule.state != now:
        said = f"has ended, so it is not {now}"
    else:
        said = f"is {now}" if change.changed else f"is {now} already"
    console.print(f"{inert(change.schedule.key)} {said}", markup=False)
    for what, ticks in (
        ("withdrawn", change.withdrawn),
        ("ran, or runs", change.ran),
        ("may run yet, as its agent did not answer", change.unknown),
    ):
        for tick in ticks:
            typer.echo(f"  tick {tick.isoformat()}: {what}")


def _table(schedules: "Sequence[ScheduleInfo]", now: datetime) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "handler", "when", "zone", "state", "next", "profile"):
        table.add_column(heading)
    for schedule in schedules:
        table.add_row(
            escape(inert(brief(schedule.key))),
            escape(schedule.handler),
            escape(inert(brief(schedule.when))),
            escape(schedule.timezone),
            "retiring" if schedule.retires_at and schedule.state == "active" else str(schedule.state),
            "" if schedule.next_at is None else ago(schedule.next_at, now),
            escape(schedule.profile or ""),
        )
    return table


def _occurrences(occurrences: "Sequence[OccurrenceInfo]") -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("latest ticks", "state", "job", "late", "took", "id"):
        table.add_column(heading)
    for tick in occurrences:
        table.add_row(
            tick.at.isoformat(),
            f"{tick.state}({tick.note})" if tick.note else str(tick.state),
            "" if tick.job_state is None else str(tick.job_state),
            "" if tick.lateness is None else f"{tick.lateness.total_seconds():.3f} s",
            "" if tick.duration is None else f"{tick.duration.total_seconds():.3f} s",
            tick.job_id or "",
        )
    return table
