"""`jobmaster hosts`: the machines that workers run on."""

from datetime import UTC, datetime

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.jobs import ask
from jobmaster.cli.render import ago, megabytes, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

app = typer.Typer(help="The machines that workers run on.", no_args_is_help=True)


@app.callback()
def hosts() -> None:
    """The machines that workers run on."""


@app.command("list")
def list_hosts(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Each machine that workers told the master of, with what runs there."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.topology.hosts())
    if as_json:
        print_json(found)
        return
    if not found:
        terminal().print("the master knows of no worker")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "workers", "agents", "busy", "memory", "seen"):
        table.add_column(heading)
    now = datetime.now(UTC)
    for host in found:
        silent = len(host.workers) - host.alive
        workers = f"{host.alive} [red]and {silent} silent[/]" if silent else str(host.alive)
        busy = f"{host.busy}/{host.slots}"
        agents = escape(", ".join(host.agents))
        table.add_row(escape(host.name), workers, agents, busy, megabytes(host.rss_bytes), ago(host.seen_at, now))
    terminal().print(table)
