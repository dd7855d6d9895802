"""`jobmaster run` and `jobmaster worker`: processes that stay until they are told to stop."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.target import App, Config, File, Name, find_cluster
from jobmaster.model.modes import WorkerMode

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster
    from jobmaster.runtime import Runtime


AcceptUnsafe = Annotated[
    bool,
    typer.Option(
        "--accept-unsafe",
        help="Work also with a store whose settings break a promise, such as one that forgets what it acknowledged "
        "when the power fails; `jobmaster doctor` names them.",
    ),
]


def run(
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    accept_unsafe: AcceptUnsafe = False,
) -> None:
    """Run the cluster as it is built: its duties and its workers. Ctrl-C drains; twice stops at once."""
    found = find_cluster(app, config, file, cluster)
    run_async(_serve(_accepting(found, accept_unsafe), accepted=accept_unsafe))


def worker(
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    agent: Annotated[str | None, typer.Option(help="The agent to attach to; not needed if there is only one.")] = None,
    lanes: Annotated[str | None, typer.Option(help="Comma-separated; default: `default`.")] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs run at the same time.")] = None,
    name: Annotated[str | None, typer.Option(help="The worker's name; default: the host's.")] = None,
    mode: Annotated[
        WorkerMode,
        typer.Option(
            help="execution: without the cluster's duties; coordinator: nothing but these; drain: as execution, until "
            "nothing is left on its lanes."
        ),
    ] = WorkerMode.FULL,
    accept_unsafe: AcceptUnsafe = False,
) -> None:
    """Run one worker of the cluster, and none of those it is built with."""
    found = find_cluster(app, config, file, cluster)
    chosen = [lane.strip() for lane in lanes.split(",")] if lanes else None
    found = _accepting(found.without_workers(), accept_unsafe)
    if mode is not WorkerMode.FULL:
        from jobmaster.crew import worker_settings

        only = worker_settings(
            found.settings, name=name, agent=agent, slots=slots, lanes=chosen, prefetch=None, mode=mode
        )
        run_async(_serve(found.with_workers(only), accepted=accept_unsafe))
        return
    run_async(_serve(found, agent=agent, lanes=chosen, slots=slots, name=name, extra=True, accepted=accept_unsafe))


def _accepting(cluster: "Cluster", accept_unsafe: bool) -> "Cluster":
    return cluster.accepting_unsafe() if accept_unsafe else cluster


async def _serve(
    cluster: "Cluster",
    *,
    agent: str | None = None,
    lanes: list[str] | None = None,
    slots: int | None = None,
    name: str | None = None,
    extra: bool = False,
    accepted: bool = False,
) -> None:
    with StopSignals() as signals:
        runtime = await cluster.start()
        try:
            for agent_name, report in runtime.agents.reports.items() if accepted else ():
                for finding in report.findings:
                    typer.echo(f"agent {agent_name}: {finding}")
            if extra and not await _added(
                runtime.add_worker(name=name, agent=agent, slots=slots, lanes=lanes), signals
            ):
                return
            for each in runtime.workers:
                typer.echo(f"worker {each.id} is running; Ctrl-C drains it")
            if cluster.settings.workers and all(
                worker.mode is WorkerMode.COORDINATOR for worker in cluster.settings.workers
            ):
                typer.echo("this process is running and coordinates; Ctrl-C ends it")
            await asked(runtime, signals)
            typer.echo("draining: running jobs finish, nothing new is started; Ctrl-C again stops at once")
        finally:
            await stop(runtime, signals)
        if runtime.fault is not None:
            raise runtime.fault
        typer.echo("stopped")


async def _added(adding: Coroutine[Any, Any, object], signals: StopSignals) -> bool:
    """Whether the worker was added before this process was told to stop: its agent may keep it waiting."""
    added, asked = asyncio.ensure_future(adding), asyncio.ensure_future(signals.asked.wait())
    try:
        await asyncio.wait((added, asked), return_when=asyncio.FIRST_COMPLETED)
        if added.done():
            added.result()
        return added.done()
    finally:
        for one in (added, asked):
            one.cancel()
        await asyncio.gather(added, asked, return_exceptions=True)


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
