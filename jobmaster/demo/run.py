"""`jobmaster demo`: plan or resume a batch, show it run, report it from the history."""

import asyncio
import uuid
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.live import Live

from jobmaster import ClusterBuilder, JobState
from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.render import inert
from jobmaster.cli.run import stop
from jobmaster.cluster import Cluster
from jobmaster.demo import batch as batches
from jobmaster.demo import live
from jobmaster.demo.census import Census
from jobmaster.demo.handlers import FILES_LANE, FILMS_LANE, Batch, DevelopFilm, ReadFile, Summarise, Tick
from jobmaster.demo.report import print_report
from jobmaster.demo.tree import Tree, standard_library
from jobmaster.model.states import TERMINAL
from jobmaster.runtime import Runtime
from jobmaster.scheduler import Scheduler

SLOTS = 20
FILM_SLOTS = 3
TICKS_WANTED = 5
LOOK_EVERY_SECONDS = 0.25


def main(path: Path | None, file: Path) -> int:
    """The exit code: 0 done, 2 a wrong path, 130 interrupted."""
    root = (path or standard_library()).absolute()
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        Console(stderr=True, soft_wrap=True).print(
            f"jobmaster: demo PATH {str(path)!r} {what}; expected a folder to read", markup=False, highlight=False
        )
        return 2
    return run_async(_demo(Tree(root), file))


def build(file: Path, census: Census) -> Cluster:
    """The demonstration's cluster: standalone, on one file."""
    config = ClusterBuilder("demo").add_handlers(ReadFile, DevelopFilm, Tick, Summarise)
    config.handler_factory(lambda handler: handler(census) if handler is Summarise else handler())
    config.use_master(f"sqlite:///{file}")
    config.add_worker("demo").slots(SLOTS).lanes(FILES_LANE, "default").lane(FILMS_LANE, FILM_SLOTS)
    config.log(level="error")
    return config.build()


async def _demo(tree: Tree, file: Path) -> int:
    console = Console(soft_wrap=True, highlight=False)
    census = Census()
    with StopSignals() as signals:
        runtime = await build(file, census).start()
        try:
            census.scheduler = runtime.scheduler
            done = await _work(console, runtime, census, tree, file, signals)
        finally:
            if signals.asked.is_set():
                console.print("draining: what runs may finish; run this again with the same file to go on")
            await stop(runtime, signals)
    return 0 if done else 130


async def _work(
    console: Console, runtime: Runtime, census: Census, tree: Tree, file: Path, signals: StopSignals
) -> bool:
    """Whether the batch ended (or there was nothing to do), rather than being interrupted."""
    scheduler = runtime.scheduler
    batch = await batches.unfinished(scheduler)
    if batch is not None:
        tree = Tree(Path(batch.root))
        console.print(f"going on with the unfinished batch of {inert(batch.root)}", markup=False)
    files = list(tree.files())
    if not files and batch is None:
        nothing = f"{inert(str(tree.root))} has no file to work on{_left_out(tree.skipped)}: nothing to do"
        console.print(nothing, markup=False)
        return True
    if batch is None:
        batch = Batch(str(uuid.uuid4()), str(tree.root))
        plan = f"one job for each of {len(files):,} files below {inert(str(tree.root))}{_left_out(tree.skipped)}"
        console.print(plan, markup=False)
    known = frozenset([job.id async for job in census.jobs(batch.batch, "read-file")])
    await batches.begin(scheduler, batch)
    await scheduler.many(batches.file_jobs(batch, iter(files), known))
    ended = await _watch(console, scheduler, census, batch, max(len(files), len(known)), signals)
    if not ended:
        return False
    await scheduler.cancel_schedule(batches.TICK_KEY)
    await runtime.sync_history()
    ticks = await _ticks(scheduler, batch)
    await print_report(console, census, batch.batch, tree.skipped, ticks, file)
    return True


def _left_out(skipped: Counter[str]) -> str:
    if not skipped:
        return ""
    return " (left out: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(skipped.items())) + ")"


async def _watch(
    console: Console, scheduler: Scheduler, census: Census, batch: Batch, total: int, signals: StopSignals
) -> bool:
    """Show progress until everything has ended; False if a signal came first."""
    rate = live.Rate()
    plain = live.plain(console)
    last_line = 0.0
    with Live(console=console, refresh_per_second=8, transient=True, auto_refresh=not plain) as display:
        while not signals.asked.is_set():
            shot = await _look(scheduler, census, batch, total)
            speed = rate.add(shot.ended)
            now = asyncio.get_running_loop().time()
            if not plain:
                display.update(live.panel(shot, speed))
            elif now - last_line >= live.PLAIN_EVERY_SECONDS:
                last_line = now
                console.print(live.line(shot, speed))
            if await _over(scheduler, census, batch, shot):
                return True
            try:
                await asyncio.wait_for(signals.asked.wait(), LOOK_EVERY_SECONDS)
            except TimeoutError:
                continue
    return False


async def _look(scheduler: Scheduler, census: Census, batch: Batch, total: int) -> live.Snapshot:
    states: Counter[str] = Counter()
    open_files = 0
    for lane in (await scheduler.counts()).lanes.values():
        for state, count in lane.states.items():
            states[state] += count
            if lane.lane == FILES_LANE and state not in TERMINAL:
                open_files += count
    films = [film async for film in census.jobs(batch.batch, "develop-film")]
    return live.Snapshot(states, films, total, max(total - open_files, 0), await _ticks(scheduler, batch))


async def _over(scheduler: Scheduler, census: Census, batch: Batch, shot: live.Snapshot) -> bool:
    if shot.ended < shot.total or shot.ticks < TICKS_WANTED or any(film.state not in TERMINAL for film in shot.films):
        return False
    summary = await scheduler.get(batches.job_id(batch.batch, "summary"))
    return summary.state in TERMINAL


async def _ticks(scheduler: Scheduler, batch: Batch) -> int:
    """Ticks that ran since the batch began, up to a page of them."""
    began = (await scheduler.get(batches.job_id(batch.batch, "summary"))).created_at
    page = await scheduler.list(handler="tick", state=JobState.SUCCEEDED, since=began, limit=100)
    return len(page.jobs)
