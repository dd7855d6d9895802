"""`jobmaster lanes` and `jobmaster scale-hint`: what waits where, and steering it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.deeds import Wait, Yes, carry_out
from jobmaster.cli.jobs import ask
from jobmaster.cli.render import print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

if TYPE_CHECKING:
    from jobmaster.lanes import LaneInfo

Lane = Annotated[str, typer.Argument(metavar="LANE", help="The lane's name.")]
Agent = Annotated[str | None, typer.Option(help="On this agent only.")]

app = typer.Typer(help="What waits in which lane; pause, drain, purge and move it.", no_args_is_help=True)


@app.command("list")
def list_lanes(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """All lanes, per agent: what waits and runs, and who is there for it."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.lanes.list())
    if as_json:
        print_json([{**_plain(info)} for info in found])
        return
    terminal().print(lanes_table(found) if found else "no lanes yet")


def _plain(info: "LaneInfo") -> dict[str, object]:
    from jobmaster.cli.render import plain

    told = {"paused": info.paused, "unserved": info.unserved, "unserved_jobs": info.unserved_jobs}
    return {**plain(info), **told}


def lanes_table(lanes: "Sequence[LaneInfo]") -> Table:
    """One line for a lane on an agent."""
    table = Table(box=None, pad_edge=False)
    for heading in ("lane", "agent", "ready", "delayed", "running", "parked", "held", "oldest", "workers", "slots", ""):
        table.add_column(heading, justify="left" if heading in ("lane", "agent", "") else "right")
    for info in lanes:
        for number, part in enumerate(info.agents):
            oldest = "" if part.oldest_ready is None else f"{part.oldest_ready.total_seconds():.0f} s"
            said = ["[yellow]paused[/]"] if part.paused else []
            said += ["[red]no worker serves it[/]"] if part.unserved else []
            counts = [f"{count:,}" for count in (part.ready, part.delayed, part.running, part.parked)]
            held = "" if number else f"{info.held:,}"
            ours = (oldest, str(part.workers), str(part.slots), ", ".join(said))
            table.add_row(escape(info.name), escape(part.agent), *counts, held, *ours)
    return table


@app.command()
def pause(
    lane: Lane,
    agent: Agent = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have nothing of a lane be claimed. Jobs are still stored, and what runs ends."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.lanes.pause(lane, agent=agent))
    _show(found, "paused", as_json)


@app.command()
def resume(
    lane: Lane,
    agent: Agent = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have a lane be claimed again."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.lanes.resume(lane, agent=agent))
    _show(found, "open", as_json)


@app.command()
def drain(
    lane: Lane,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Pause a lane, and return when nothing of it runs any more."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.lanes.drain(lane))
    _show(found, "drained, and stays paused until it is resumed", as_json)


@app.command()
def purge(
    lane: Lane,
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Cancel all that waits in a lane. What runs is left alone."""
    carry_out(
        (app, config, file, cluster),
        "cancel",
        {"lane": lane, "state": ["awaiting", "held", "dispatching", "queued"]},
        lambda scheduler: scheduler.lanes.purge(lane),
        yes=yes,
        wait=wait,
        as_json=as_json,
        verb="cancel",
    )


@app.command()
def move(
    lane: Lane,
    to: Annotated[str, typer.Argument(metavar="TO", help="The lane they go to.")],
    yes: Yes = False,
    wait: Wait = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Put all that waits in a lane into another one."""
    carry_out(
        (app, config, file, cluster),
        "edit",
        {"lane": lane},
        lambda scheduler: scheduler.lanes.move(lane, to),
        yes=yes,
        wait=wait,
        as_json=as_json,
        verb=f"move to lane {to}",
    )


def scale_hint(
    lanes: Annotated[str, typer.Option("--lanes", help="Comma-separated.")] = "default",
    slots: Annotated[int, typer.Option(help="Slots of one worker.")] = 10,
    target: Annotated[float, typer.Option(help="Seconds that a ready job may wait before another worker is due.")] = 10,
    least: Annotated[int, typer.Option("--min", help="Never fewer workers.")] = 0,
    most: Annotated[int, typer.Option("--max", help="Never more workers.")] = 100,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """How many workers there should be: a number, for an autoscaler to read."""
    wanted = [lane.strip() for lane in lanes.split(",")]
    found = ask(
        (app, config, file, cluster),
        lambda scheduler: scheduler.lanes.scale_hint(
            wanted, slots_per_worker=slots, target_seconds=target, least=least, most=most
        ),
    )
    print_json(found) if as_json else typer.echo(found.wanted)


def _show(info: "LaneInfo", state: str, as_json: bool) -> None:
    if as_json:
        print_json(_plain(info))
        return
    typer.echo(f"lane {info.name} is {state}: {info.waiting:,} waiting, {info.running:,} running, {info.held:,} held")
