"""`jobmaster operations`: changes of many jobs, as far as they are, and who asked for them."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from jobmaster.cli.deeds import show as show_operation
from jobmaster.cli.jobs import ask
from jobmaster.cli.render import inert, plain, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

OperationId = Annotated[str, typer.Argument(metavar="ID", help="The operation's id.")]

app = typer.Typer(help="Changes of many jobs: how far they are, and who asked for them.", no_args_is_help=True)


@app.command("list")
def list_operations(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """The latest operations."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.bulk.list(limit=limit))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "kind", "state", "changed", "skipped", "who", "asked for"):
        table.add_column(heading)
    for each in found:
        asked = " ".join(f"{name}={plain(value)}" for name, value in each.terms.items())
        counts = (f"{each.changed:,}", f"{each.skipped:,}")
        table.add_row(each.id, str(each.kind), str(each.state), *counts, escape(inert(each.who)), escape(inert(asked)))
    terminal().print(table if found else "no operations yet")


@app.command()
def show(
    operation_id: OperationId,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """How far one is."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.bulk.get(operation_id))
    show_operation(found, as_json)


@app.command()
def stop(
    operation_id: OperationId,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Have one change nothing more; what it has changed stays so."""
    found = ask((app, config, file, cluster), lambda scheduler: scheduler.bulk.stop(operation_id))
    show_operation(found, as_json)
