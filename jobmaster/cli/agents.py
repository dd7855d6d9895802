"""`jobmaster agents`: the stores behind the agents' names, and taking agents out of the cluster and in again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import asdict
from rich.markup import escape

from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.render import inert, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name, find_cluster

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster
    from jobmaster.contracts.entries import AgentEntry
    from jobmaster.topology import AgentStanding, Topology

app = typer.Typer(
    help="Look at the agents the master knows, take them out and in, and point a name at another store.",
    no_args_is_help=True,
)

POLL_SECONDS = 0.5

Agent = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_agents(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """The agents the master knows: what an operator decided about each, the store behind its name, how far it was seen,
    and whether it is in quarantine."""
    from jobmaster.agent_names import known_agents

    entries = run_async(known_agents(find_cluster(app, config, file, cluster)))
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    console = terminal()
    for entry in entries:
        console.print(
            f"{entry.name}  {escape(entry.kind)}  {escape(inert(entry.fingerprint))}  "
            f"incarnation {escape(entry.incarnation)}  mark {entry.high_water}  {_state(entry)}"
        )
    if not entries:
        console.print("the master knows no agent yet; each is entered when a process first starts")


def _state(entry: "AgentEntry") -> str:
    if entry.quarantined:
        return f"[bold red]in quarantine: {escape(inert(entry.quarantined))}[/]"
    target = f" to {entry.target}" if entry.target else ""
    return f"{entry.state}{target}, trusted"


@app.command()
def drain(
    name: Agent,
    to: Annotated[str | None, typer.Option(help="Where its jobs go; unless given to any agent that stays.")] = None,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option(help="Stay until nothing is left there, and help.")] = True,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Move all that has not started on an agent to another one. What runs there ends there, and nothing new goes there.

    Until it is drained this command does its share of the work; Ctrl-C leaves the rest to the processes of the
    cluster. `jobmaster agents resume` takes it back in."""
    run_async(_drain(find_cluster(app, config, file, cluster), name, to, yes=yes, wait=wait, as_json=as_json))


async def _drain(cluster: "Cluster", name: str, to: str | None, *, yes: bool, wait: bool, as_json: bool) -> None:
    async with cluster.connect() as scheduler:
        standing = await scheduler.topology.agent(name)
        if not yes:
            where = f"agent {to}" if to else "other agents"
            known = _left(standing) if standing.problem is None else f"not known ({standing.problem})"
            typer.confirm(f"agent {name}: {known}; move what waits to {where}?", abort=True, err=True)
        if not wait:
            _show(await scheduler.topology.drain(name, to=to), as_json)
            return
    with StopSignals() as signals:
        # The other processes may all be workers of another agent, or be stopped; and an agent that is new to the master
        # is entered by a start.
        async with cluster.without_workers().run() as runtime:
            await runtime.scheduler.topology.drain(name, to=to)
            standing = await _until_drained(runtime.scheduler.topology, name, signals.asked, quiet=as_json)
    _show(standing, as_json)


async def _until_drained(topology: "Topology", name: str, stop: asyncio.Event, *, quiet: bool) -> "AgentStanding":
    said = ""
    while True:
        standing = await topology.agent(name)
        words = _left(standing)
        if words != said and not quiet:
            typer.echo(f"agent {name}: {words}")
        said = words
        if standing.state.value != "draining" or stop.is_set():
            return standing
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


def _left(standing: "AgentStanding") -> str:
    if standing.problem is not None:
        return f"{standing.state}; {standing.problem}"
    history = "" if standing.settled else ", the master has not heard of all yet"
    return f"{standing.state}; {standing.waiting} waiting, {standing.running} running{history}"


def _show(standing: "AgentStanding", as_json: bool) -> None:
    if as_json:
        print_json(standing)
    else:
        typer.echo(f"agent {standing.name} is {standing.state}")


@app.command()
def pause(
    name: Agent, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Have nothing be claimed on an agent. What runs there ends, new jobs are stored and wait."""
    _change(find_cluster(app, config, file, cluster), lambda topology: topology.pause(name), as_json)


@app.command()
def resume(
    name: Agent, app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Have an agent take part again that was paused, drained or decommissioned."""
    _change(find_cluster(app, config, file, cluster), lambda topology: topology.resume(name), as_json)


@app.command()
def decommission(
    name: Agent,
    yes: Yes = False,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Take a drained agent out for good. Then take it out of the settings of all processes."""
    found = find_cluster(app, config, file, cluster)
    if not yes:
        typer.confirm(f"agent {name}: take it out of the cluster for good?", abort=True, err=True)
    _change(found, lambda topology: topology.decommission(name), as_json)


def _change(cluster: "Cluster", change: "Callable[[Topology], Awaitable[AgentStanding]]", as_json: bool) -> None:
    async def changed() -> "AgentStanding":
        async with cluster.connect() as scheduler:
            return await change(scheduler.topology)

    _show(run_async(changed()), as_json)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An agent, a worker or a handler.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many, newest first.")] = 20,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """What happened to the cluster's agents, workers and handlers, when, and by whom."""

    async def read(found: "Cluster") -> tuple[Any, ...]:
        async with found.connect() as scheduler:
            return await scheduler.topology.history(name, limit=limit)

    events = run_async(read(find_cluster(app, config, file, cluster)))
    if as_json:
        print_json(events)
        return
    console = terminal()
    for event in events:
        detail = "  ".join(f"{key}={value}" for key, value in event.detail.items())
        line = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind}  {event.subject}  by {event.who}  {detail}"
        console.print(escape(inert(line.rstrip())))
    if not events:
        console.print("nothing has been recorded")


@app.command()
def repoint(
    name: Agent,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Let a name stand for the store that the settings name now, because the old one has moved there or is gone.

    If that store is not the old one as it was, it is quarantined when the next process starts, and reconciled: what the
    master knows to wait at this agent is placed there anew; jobs that only the old store knew are not."""
    from jobmaster.agent_names import repoint as renamed

    before, now = run_async(renamed(find_cluster(app, config, file, cluster), name))
    if as_json:
        print_json({"before": asdict(before), "now": asdict(now)})
        return
    typer.echo(f"agent {name}: it was {inert(before.fingerprint)}, it is {inert(now.fingerprint)}")
