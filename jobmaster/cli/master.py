"""`jobmaster master`: the cluster's database itself, and moving it."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from jobmaster.cli.eventloop import run_async
from jobmaster.cli.render import inert, print_json
from jobmaster.cli.target import Json, Name, held_cluster
from jobmaster.model.errors import ConfigurationError

app = typer.Typer(help="Move the master to another database.", no_args_is_help=True)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def move(
    source: Annotated[str, typer.Argument(metavar="FROM", help="URL of the master as it is.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="URL of an empty database.")],
    cluster: Name = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Move the master to another database. Agents and workers go on meanwhile.

    From the beginning of this the old master refuses every write, so jobs for later, schedules and history wait for
    the processes that are started with the new address. What was cut short is completed by the same command."""
    from jobmaster.master import masked
    from jobmaster.master_move import move_master

    name = _cluster(source, cluster)
    if not yes:
        typer.confirm(
            f"seal {masked(source)} for good, and move what cluster {name!r} has there to {masked(target)}?",
            abort=True,
            err=True,
        )
    tell = (lambda words: None) if as_json else (lambda words: typer.echo(inert(words)))
    done = run_async(move_master(source, target, name, tell=tell))
    if as_json:
        print_json(asdict(done))
    elif done.already:
        typer.echo(f"{done.source} was moved to {done.target} before; nothing was done")
    else:
        typer.echo(f"{done.target} is open; start every process with that address")


@app.command()
def unseal(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the sealed master.")],
    cluster: Name = None,
    yes: Yes = False,
) -> None:
    """Have a sealed master take writes again: for a move that was given up. Two masters in use at once would each know
    a part."""
    from jobmaster.master import masked
    from jobmaster.master_move import unseal_master

    name = _cluster(url, cluster)
    if not yes:
        typer.confirm(f"is the master that {masked(url)} was moved to used by no process?", abort=True, err=True)
    run_async(unseal_master(url, name))
    typer.echo(f"{masked(url)} takes writes again")


def _cluster(url: str, name: str | None) -> str:
    """The cluster's name: given, or that of the only one in the file."""
    if url.startswith("sqlite:"):
        from jobmaster.sqlite import path_of

        path = Path(path_of(url))
        if not path.is_file():
            raise ConfigurationError([f"{url}: no such file; expected the master of a cluster that has run"])
        return held_cluster(path, name)
    if name is None:
        raise ConfigurationError(["name the cluster: --cluster NAME"])
    return name
