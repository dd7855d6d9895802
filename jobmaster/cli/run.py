"""`jobmaster run` and `jobmaster worker`: processes that stay until they are told to stop."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.target import App, Config, File, Name, find_cluster

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster
    from jobmaster.runtime import Runtime


def run(app: App = None, config: Config = None, file: File = None, cluster: Name = None) -> None:
    """Run the cluster as it is built: its duties and its workers. Ctrl-C drains; twice stops at once."""
    run_async(_serve(find_cluster(app, config, file, cluster)))


def worker(
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    agent: Annotated[str | None, typer.Option(help="The agent to attach to; not needed if there is only one.")] = None,
    lanes: Annotated[str | None, typer.Option(help="Comma-separated; default: `default`.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs run at the same time.")] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; default: the host's.")] = None,
) -> None:
    """Run one worker of the cluster, and none of those it is built with."""
    found = find_cluster(app, config, file, cluster)
    chosen = [lane.strip() for lane in lanes.split(",")] if lanes else None
    run_async(_serve(found.without_workers(), agent=agent, lanes=chosen, slots=slots, name=name, extra=True))


async def _serve(
    cluster: "Cluster",
    *,
    agent: str | None = None,
    lanes: list[str] | None = None,
    slots: int | None = None,
    name: str | None = None,
    extra: bool = False,
) -> None:
    with StopSignals() as signals:
        runtime = await cluster.start()
        try:
            if extra:
                await runtime.add_worker(name=name, agent=agent, slots=slots, lanes=lanes)
            for each in runtime.workers:
                typer.echo(f"worker {each.id} is running; Ctrl-C drains it")
            await asked(runtime, signals)
            typer.echo("draining: running jobs finish, nothing new is started; Ctrl-C again stops at once")
        finally:
            await stop(runtime, signals)
        typer.echo("stopped")


async def asked(runtime: "Runtime", signals: StopSignals) -> None:
    """Return once this process is to stop: by a signal, or because a worker was told to through its agent."""
    waits = [asyncio.ensure_future(event.wait()) for event in (signals.asked, runtime.stop_requested)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def stop(runtime: "Runtime", signals: StopSignals) -> None:
    """Stop in order; at once when the signal comes a second time."""
    draining = asyncio.ensure_future(runtime.stop())
    insisted = asyncio.ensure_future(signals.insisted.wait())
    await asyncio.wait({draining, insisted}, return_when=asyncio.FIRST_COMPLETED)
    insisted.cancel()
    if not draining.done():
        await runtime.stop(timeout=0)
    await draining
