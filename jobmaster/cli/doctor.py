"""`jobmaster doctor` and `jobmaster migrate`: is the set-up sound, and is the schema there."""

from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from jobmaster.cli.eventloop import run_async
from jobmaster.cli.render import inert, print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name, find_cluster
from jobmaster.contracts.clock import SystemClock
from jobmaster.model.errors import ConfigurationError

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster

STYLES = {"ok": "green", "note": "cyan", "fault": "bold red"}


def doctor(
    app: App = None, config: Config = None, file: File = None, cluster: Name = None, as_json: Json = False
) -> None:
    """Check the settings and every store, and whether somebody is there for what waits. Changes nothing."""
    from jobmaster.diagnosis import Finding, Level, diagnose

    try:
        findings = run_async(diagnose(find_cluster(app, config, file, cluster)))
    except ConfigurationError as error:
        findings = [Finding(Level.FAULT, "settings", fault) for fault in error.faults]
    faults = sum(finding.level is Level.FAULT for finding in findings)
    if as_json:
        print_json(findings)
    else:
        console = terminal()
        for finding in findings:
            console.print(
                f"[{STYLES[finding.level]}]{finding.level:>5}[/]  {escape(inert(finding.subject))}: "
                f"{escape(inert(finding.text))}",
            )
        console.print("nothing is wrong" if not faults else f"{faults} faults" if faults > 1 else "1 fault")
    if faults:
        raise typer.Exit(1)


def migrate(app: App = None, config: Config = None, file: File = None, cluster: Name = None) -> None:
    """Bring the schema of the master and of every agent up to this version. Repeating it changes nothing."""
    run_async(_migrate(find_cluster(app, config, file, cluster)))


async def _migrate(cluster: "Cluster") -> None:
    from jobmaster.diagnosis import make_agent, make_master

    settings, clock = cluster.settings, SystemClock()
    master = make_master(settings, clock, migrate=True)
    try:
        report = await master.open()
        typer.echo(
            f"master {settings.master.shown_url}: schema at revision {report.facts.get('schema', 'none needed')}"
        )
    finally:
        await master.close()
    for name in settings.agents:
        agent = make_agent(settings, name, clock, migrate=True)
        try:
            report = await agent.open()
            typer.echo(f"agent {name}: schema at revision {report.facts.get('schema', 'none needed')}")
        finally:
            await agent.close()
