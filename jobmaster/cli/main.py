"""The `jobmaster` command. Parses, calls, renders; no rules and no SQL here.

Exit codes: 0 done; 1 the thing asked for failed or was not found; 2 the call or the configuration is wrong; 3 a store
could not be reached or used.
"""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from jobmaster.cli import (
    agents,
    dead_letters,
    doctor,
    hosts,
    jobs,
    lanes,
    master,
    operations,
    schedule_commands,
    starter,
    top,
    workers,
)
from jobmaster.cli import run as running
from jobmaster.cli.render import inert
from jobmaster.cli.target import Json
from jobmaster.model.errors import (
    ConfigurationError,
    JobMasterError,
    KeyInvalid,
    NameInvalid,
    OptionInvalid,
    StoreError,
)

app = typer.Typer(
    name="jobmaster",
    help="Background jobs: run workers, look at jobs, mend what went wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(jobs.app, name="jobs")
app.add_typer(schedule_commands.app, name="schedules")
app.add_typer(agents.app, name="agents")
app.add_typer(workers.app, name="workers")
app.add_typer(hosts.app, name="hosts")
app.add_typer(lanes.app, name="lanes")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(operations.app, name="operations")
app.command("scale-hint")(lanes.scale_hint)
app.command("top")(top.top)
app.add_typer(master.app, name="master")
app.command("run")(running.run)
app.command("worker")(running.worker)
app.command("stats")(jobs.stats)
app.command("doctor")(doctor.doctor)
app.command("migrate")(doctor.migrate)
app.command("init")(starter.init)


@app.command()
def demo(
    path: Annotated[Path | None, typer.Argument(help="Folder to work on; default: Python's standard library.")] = None,
    file: Annotated[Path, typer.Option(help="The SQLite file that holds everything.")] = Path("demo.db"),
) -> None:
    """Do real work on real files: one job per file of a folder tree, with retries, progress and a schedule."""
    from jobmaster.demo.run import main

    raise typer.Exit(main(path, file))


@app.command()
def version(as_json: Json = False) -> None:
    """The versions of JobMaster, Python and SQLite."""
    import json
    import platform
    import sqlite3
    from importlib.metadata import version as installed_version

    facts = {
        "jobmaster": installed_version("jobmaster-runtime"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    typer.echo(json.dumps(facts) if as_json else "\n".join(f"{name} {number}" for name, number in facts.items()))


def run() -> None:
    """The entry point: every foreseen error is one message on stderr and an exit code."""
    # A locale that cannot show a character shows its number; an error message must not end in another error.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ConfigurationError, NameInvalid, KeyInvalid, OptionInvalid) as error:
        code, message = 2, str(error)
    except StoreError as error:
        code, message = 3, str(error)
    except JobMasterError as error:
        code, message = 1, str(error)
    else:
        return
    print(f"jobmaster: {inert(message, keep=chr(10))}", file=sys.stderr)
    sys.exit(code)
