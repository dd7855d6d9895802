"""`jobmaster dead-letters`: jobs that failed, by handler and error, and running them again."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.deeds import Conditions, Everything, Wait, Yes, carry_out, conditions
from jobmaster.cli.jobs import ask
from jobmaster.cli.render import ago, brief, inert, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

app = typer.Typer(help="Jobs that failed, by handler and error; run them again.", no_args_is_help=True)


@app.command("list")
def list_dead_letters(
    handler: Annotated[str | None, typer.Option()] = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Groups of failed jobs whose errors look alike, the largest first."""
    report = ask((app, config, file, cluster), lambda scheduler: scheduler.operations.dead_letters(handler=handler))
    if as_json:
        print_json(report)
        return
    console, now = terminal(), datetime.now(UTC)
    table = Table(box=None, pad_edge=False)
    for heading in ("fingerprint", "jobs", "handler", "reason", "newest", "error"):
        table.add_column(heading)
    for group in report.groups:
        error = escape(inert(brief(group.newest_error or "")))
        newest = ago(group.newest_at, now)
        table.add_row(group.fingerprint, f"{group.count:,}", escape(group.handler), str(group.reason), newest, error)
    console.print(table if report.groups else "no dead letters")
    if not report.complete:
        console.print("only the newest were looked at", style="yellow")


@app.command()
def redrive(
    fingerprints: Annotated[
        list[str] | None, typer.Argument(metavar="[FINGERPRINT]...", help="Of their groups.")
    ] = None,
    where: Conditions = None,
    everything: Everything = False,
    rate: Annotated[float | None, typer.Option(help="At most so many a second.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Let the count of attempts go on: one more each.")] = False,
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Run dead letters again, from scratch unless told otherwise: some groups, those that meet conditions, or all."""
    if not (fingerprints or where or everything):
        raise typer.BadParameter("give fingerprints, --where or --all")
    meant = {**conditions(where), "state": "failed"}
    if fingerprints:
        meant["fingerprint"] = fingerprints
    carry_out(
        (app, config, file, cluster),
        "retry",
        meant,
        lambda scheduler: scheduler.bulk.retry(fresh=not resume, per_second=rate, **meant),
        yes=yes,
        wait=wait,
        as_json=as_json,
        verb="run again",
    )
