"""`jobmaster top`: a live view of workers, lanes and what goes through them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.lanes import lanes_table
from jobmaster.cli.render import plain, print_json
from jobmaster.cli.target import App, Config, File, Json, Name, find_cluster
from jobmaster.cli.workers import workers_table
from jobmaster.model.errors import StoreError
from jobmaster.model.states import TERMINAL, JobState

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster
    from jobmaster.lanes import LaneInfo
    from jobmaster.scheduler import Scheduler
    from jobmaster.views import Counts
    from jobmaster.workers import WorkerInfo


class Glance:
    """What there was to see at one moment."""

    def __init__(self, at: datetime, counts: "Counts | None", workers: "Sequence[WorkerInfo]") -> None:
        self.at = at
        self.counts = counts
        """None while the master is away."""
        self.workers = workers
        self.lanes: Sequence[LaneInfo] = ()

    @property
    def ended(self) -> int | None:
        """Jobs that have ended; None where that is not known, or not to the last."""
        if self.counts is None or self.counts.capped:
            return None
        return sum(self.counts.total(state) for state in TERMINAL)


def top(
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print, and end.")] = False,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """Workers, lanes and totals, as they change. Ctrl-C ends it."""
    run_async(_top(find_cluster(app, config, file, cluster), every, once=once or as_json, as_json=as_json))


async def _top(cluster: "Cluster", every: float, *, once: bool, as_json: bool) -> None:
    async with cluster.connect() as scheduler:
        glance = await _look(scheduler)
        if as_json:
            _print_json(glance)
        elif once:
            _print(cluster.name, glance, glance)
        if once:
            return
        console = Console(emoji=False, highlight=False)
        with StopSignals() as signals, Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            before = glance
            while not signals.asked.is_set():
                if console.is_terminal:
                    live.update(_view(cluster.name, glance, before), refresh=True)
                else:
                    # Into a pipe or a file: one look after the other.
                    _print(cluster.name, glance, before)
                try:
                    async with asyncio.timeout(every):
                        await signals.asked.wait()
                except TimeoutError:
                    before, glance = glance, await _look(scheduler)


async def _look(scheduler: "Scheduler") -> Glance:
    try:
        counts = await scheduler.counts()
    except StoreError:
        counts = None
    glance = Glance(datetime.now(UTC), counts, await scheduler.workers.list())
    glance.lanes = await scheduler.lanes.list()
    return glance


def _print_json(glance: Glance) -> None:
    totals = {str(state): glance.counts.total(state) for state in JobState} if glance.counts else None
    print_json({"totals": totals, "workers": plain(glance.workers), "lanes": plain(glance.lanes)})


def _print(name: str, glance: Glance, before: Glance) -> None:
    Console(emoji=False, highlight=False, width=160).print(_view(name, glance, before))


def _view(name: str, glance: Glance, before: Glance) -> Group:
    alive = [info for info in glance.workers if info.alive]
    busy, slots = sum(info.busy for info in alive), sum(info.slots for info in alive)
    workers = "worker" if len(alive) == 1 else "workers"
    head = Text(f"{name}  {glance.at:%H:%M:%S} UTC  {len(alive)} {workers}, {busy}/{slots} slots in use", style="bold")
    parts: list[Text] = [head, _totals(glance, before)]
    if glance.counts is None:
        parts.append(Text("the master is away: what is held and what has ended is not known", style="yellow"))
    else:
        parts += [
            Text(f"agent {agent} did not answer: its jobs are missing here", style="yellow")
            for agent in glance.counts.unreachable
        ]
    return Group(*parts, Text(), lanes_table(glance.lanes), Text(), workers_table(glance.workers, glance.at))


def _totals(glance: Glance, before: Glance) -> Text:
    if glance.counts is None:
        return Text()
    shown = [f"{glance.counts.total(state):,} {state}" for state in JobState if glance.counts.total(state)]
    seconds = (glance.at - before.at).total_seconds()
    if seconds > 0 and glance.ended is not None and before.ended is not None:
        shown.append(f"{max(0, glance.ended - before.ended) / seconds:,.0f} ended a second")
    return Text("  ".join(shown) or "no jobs yet")
