"""`jobmaster workers`: who runs jobs, and telling them what to do."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.deeds import Target, Yes
from jobmaster.cli.jobs import ask
from jobmaster.cli.render import ago, megabytes, plain, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler
    from jobmaster.workers import WorkerInfo

Worker = Annotated[str, typer.Argument(metavar="WORKER", help="Its id, or its name: then all of that name.")]

app = typer.Typer(help="Who runs jobs, and telling them what to do.", no_args_is_help=True)


@app.command("list")
def list_workers(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """The workers that the agents know."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.workers.list())
    if as_json:
        print_json(found)
        return
    terminal().print(workers_table(found, datetime.now(UTC)) if found else "no worker is registered")


def workers_table(workers: "Sequence[WorkerInfo]", now: datetime) -> Table:
    """One line a worker."""
    table = Table(box=None, pad_edge=False)
    for heading in ("worker", "agent", "host", "state", "busy", "lag", "memory", "lanes", "seen"):
        table.add_column(heading)
    for info in workers:
        state = info.state if info.alive else f"[red]silent ({info.state})[/]"
        busy = f"{info.busy}/{info.slots}"
        lanes = escape(", ".join(info.lanes))
        lag = "" if info.loop_lag is None else f"{info.loop_lag.total_seconds() * 1e3:.0f} ms"
        table.add_row(
            escape(info.id),
            escape(info.agent),
            escape(info.host),
            state,
            busy,
            lag,
            megabytes(info.rss_bytes),
            lanes,
            ago(info.seen_at, now),
        )
    return table


@app.command()
def show(
    worker: Worker,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Everything about a worker."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.workers.get(worker))
    if as_json:
        print_json(found)
        return
    for number, info in enumerate(found):
        if number:
            typer.echo()
        for name, value in plain(info).items():
            shown = ", ".join(value) if isinstance(value, list) else value
            terminal().print(f"{name:<12}  {shown}", markup=False)


@app.command()
def quiet(
    worker: Worker,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have a worker claim nothing more; what it has is run."""
    _told((app, config, file, cluster), lambda scheduler: scheduler.workers.quiet(worker), as_json, "quiet")


@app.command()
def resume(
    worker: Worker,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have a quiet worker claim again."""
    _told((app, config, file, cluster), lambda scheduler: scheduler.workers.resume(worker), as_json, "running")


@app.command()
def stop(
    worker: Worker,
    yes: Yes = False,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have a worker's process drain and end, with all workers in it."""
    target = (app, config, file, cluster)
    meant = ask(target, lambda scheduler: scheduler.workers.get(worker))
    if not yes:
        busy = sum(info.busy for info in meant)
        typer.confirm(f"stop {len(meant)} workers, which run {busy} jobs now?", abort=True, err=True)
    left = ask(target, lambda scheduler: scheduler.workers.stop(worker))
    if as_json:
        print_json(left)
        return
    for info in meant:
        gone = info.id not in {each.id for each in left}
        typer.echo(f"worker {info.id} {'has stopped' if gone else 'is told to stop; it finishes what it runs'}")


@app.command()
def scale(
    worker: Worker,
    slots: Annotated[int, typer.Argument(help="Jobs it runs at a time.")],
    lane: Annotated[str | None, typer.Option(help="A lane that has slots of its own there.")] = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have a worker run more or fewer jobs at a time, until it ends."""
    target = (app, config, file, cluster)
    found = ask(target, lambda scheduler: scheduler.workers.scale(worker, slots, lane=lane))
    if as_json:
        print_json(found)
        return
    for info in found:
        typer.echo(f"worker {info.id} has {info.slots} slots, {info.busy} of them in use")


def _told(
    target: Target, tell: "Callable[[Scheduler], Awaitable[tuple[WorkerInfo, ...]]]", as_json: bool, state: str
) -> None:
    found = ask(target, tell)
    if as_json:
        print_json(found)
    for info in found if not as_json else ():
        late = "" if info.state == state else f"; it was told to be {state}, and has not said yet that it is"
        typer.echo(f"worker {info.id} is {info.state}{late}")
    if any(info.state != state for info in found):
        raise typer.Exit(1)
