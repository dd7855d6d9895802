"""Three planners, of which the one that leads is killed every few seconds and two have wrong clocks, or is cut off from
the master for longer than its term: every tick of every schedule becomes exactly one job."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import OccurrenceEntry, TickState
from jobmaster.contracts.values import JobFilter
from jobmaster.model.states import JobState
from jobmaster.scheduler import Scheduler
from tests.servers import create_database, drop_database
from tests.servers.errors import Unavailable
from tests.servers.faketime import library
from tests.servers.fixtures import missing
from tests.servers.resolver import Endpoint
from tests.sizes import FULL_ONLY, SIZES
from tests.support import eventually
from tests.system.schedule_node import build
from tests.system.stalling_proxy import StallingProxy

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tests" / "system" / "schedule_node.py"
KILL_EVERY = 3.0
LED_FOR = 1.0
CUT_OFF_FOR = 5.0
"""More than a term, and than what its holder trusts of it."""
FEWEST = 2
"""How often a leader is lost at least, however slow the machine."""
SECOND = 1_000_000
SETTLING = 40
"""How long it may take until one more job has run: that all do is what counts, and not how busy the machine is."""


class Node:
    """One process, started anew each time it is killed."""

    def __init__(self, role: str, url: str, skew: int = 0, agent_url: str | None = None) -> None:
        self._command = [sys.executable, str(PROGRAM), role, url, *([] if agent_url is None else [agent_url])]
        self._environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'agents'}"}
        if skew:
            self._environment |= {
                "LD_PRELOAD": str(library()),
                "FAKETIME": f"{skew:+d}s",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        """Once this returns, it runs."""
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) != "ready\n":
            assert line, f"ended with {self.process.wait()}"

    def kill_and_restart(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()
        self.process = self._start()

    def end(self) -> None:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


@contextmanager
def nodes(*wanted: Node) -> Iterator[list[Node]]:
    running = [*wanted]
    try:
        yield running
    finally:
        for node in running:
            if node.process.stdin is not None and not node.process.stdin.closed:
                node.process.stdin.close()
        for node in running:
            node.end()


@pytest.fixture
def agent_url(sql_kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the agent's own."""
    server: Endpoint = request.getfixturevalue(f"{sql_kind}_server")
    url = create_database(server.url)
    yield url
    drop_database(server.url, url)


BOTH = pytest.mark.parametrize("sql_kind", ["postgres", pytest.param("mysql", marks=FULL_ONLY)], indirect=True)


async def leader(master: MasterStore) -> int:
    """The pid of who leads; asking for a term that is over at once takes it from nobody."""
    term = await master.lead("planner", "the test", 0)
    _, _, rest = term.holder.partition(":")
    return int(rest.partition(":")[0] or 0)


async def all_ticks(master: MasterStore, key: str, until_us: int) -> list[OccurrenceEntry]:
    found: list[OccurrenceEntry] = []
    before_us = until_us
    while page := await master.occurrences(key, before_us, 500):
        found += page
        before_us = page[-1].occurrence.tick_us
    return found[::-1]


async def all_jobs(master: MasterStore) -> Counter[tuple[str | None, int]]:
    """How many jobs there are of each schedule and tick."""
    counted: Counter[tuple[str | None, int]] = Counter()
    cursor: str | None = None
    while True:
        page = await master.page(JobFilter(), cursor, 1_000)
        counted.update((job.schedule, job.original_due_us) for job in page.jobs)
        cursor = page.cursor
        if cursor is None:
            return counted


async def states(master: MasterStore, keys: Iterable[str]) -> Counter[str]:
    """How many occurrences there are whose jobs are in which state."""
    counted: Counter[str] = Counter()
    for key in keys:
        entries = await all_ticks(master, key, 2**60)
        counted.update(f"{e.occurrence.state} {'no job' if e.job is None else e.job.state}" for e in entries)
    return counted


def histogram(lateness: Sequence[float]) -> dict[str, int]:
    bounds = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
    counted = Counter(next((f"<= {bound} s" for bound in bounds if late <= bound), "more") for late in lateness)
    return {name: counted[name] for name in [*(f"<= {bound} s" for bound in bounds), "more"] if counted[name]}


async def make_schedules(scheduler: Scheduler, count: int) -> Mapping[str, tuple[int, int]]:
    """By key: the first tick, and the step."""
    made = {}
    for number in range(count):
        step = 1 if number % 2 else 5
        info = await scheduler.recurring(
            "tick", timedelta(seconds=step), key=f"every-{step}-{number}", misfire="all(1000)"
        )
        assert info.next_at is not None
        first_us = (info.next_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        made[info.key] = (first_us, step * SECOND)
    return made


async def next_leader(master: MasterStore, planners: Sequence[Node], not_before: float) -> int:
    """The number of the planner that leads, once that time has come. It has led for a while: to end each as soon as it
    may plan would only show that then nobody does."""
    led_since: dict[int, float] = {}

    async def leading() -> Any:
        pid = await leader(master)
        now = time.monotonic()
        if now < not_before or now - led_since.setdefault(pid, now) < LED_FOR:
            return None
        # A tuple, as the first one's number would count as "not yet".
        return next(((number,) for number, node in enumerate(planners) if node.process.pid == pid), None)

    (found,) = await eventually(leading, within=30, what="one of the planners leads")
    number: int = found
    return number


async def run_out(master: MasterStore, made: Mapping[str, tuple[int, int]]) -> tuple[dict[str, list[int]], int]:
    """Wait until the job of every tick until now has succeeded: the ticks expected by schedule, and until when."""
    until_us = await master.store_now_us()
    expected = {key: list(range(first_us, until_us, step_us)) for key, (first_us, step_us) in made.items()}

    behind = {key: len(ticks) for key, ticks in expected.items()}

    async def gained() -> bool:
        """Who has caught up is not looked at again: looking at all of them all the time would keep the master busy."""
        before = sum(behind.values())
        for key in list(behind):
            entries = await all_ticks(master, key, until_us)
            ended = sum(e.job is not None and e.job.state is JobState.SUCCEEDED for e in entries)
            behind[key] = len(expected[key]) - ended
            if behind[key] <= 0:
                del behind[key]
        return sum(behind.values()) < before or not behind

    try:
        while behind:
            await eventually(gained, within=SETTLING)
    except AssertionError:
        raise AssertionError(f"not run: {behind} of {await states(master, expected)}") from None
    return expected, until_us


async def examine(master: MasterStore, expected: Mapping[str, list[int]], until_us: int) -> dict[str, Any]:
    """What became of the ticks, which must be those expected and no others."""
    lateness: list[float] = []
    skipped = 0
    for key, ticks in expected.items():
        entries = await all_ticks(master, key, until_us)
        assert [entry.occurrence.tick_us for entry in entries] == ticks
        skipped += sum(entry.occurrence.state is not TickState.PLANNED for entry in entries)
        lateness += [
            (entry.job.first_started_us - entry.occurrence.tick_us) / 1e6
            for entry in entries
            if entry.job is not None and entry.job.first_started_us is not None
        ]
    jobs = await all_jobs(master)
    return {
        "ticks expected": sum(map(len, expected.values())),
        "fired": len(lateness),
        "doubled": sum(count > 1 for count in jobs.values()),
        "skipped": skipped,
        "lateness": histogram(lateness),
    }


def assert_one_job_each(report: Mapping[str, Any]) -> None:
    assert (report["doubled"], report["skipped"]) == (0, 0)
    assert report["fired"] == report["ticks expected"]


@pytest.mark.asyncio
@pytest.mark.timeout(max(180, SIZES.failover_seconds * 3))
@pytest.mark.slow
@BOTH
async def test_every_tick_is_one_job_while_leaders_are_killed_and_clocks_are_wrong(
    sql_url: str, record_property: Any
) -> None:
    try:
        library()
    except Unavailable as error:
        missing(str(error))
    async with build("planner", sql_url).connect() as scheduler:
        master = scheduler._master
        planners = [Node("planner", sql_url, skew) for skew in (0, 60, -60)]
        with nodes(*planners, Node("worker", sql_url)) as running:
            await asyncio.gather(*(asyncio.to_thread(started.ready) for started in running))
            made = await make_schedules(scheduler, SIZES.failover_schedules)
            killed = 0
            ends = time.monotonic() + SIZES.failover_seconds
            while time.monotonic() < ends or killed < FEWEST:
                number = await next_leader(master, planners, not_before=time.monotonic() + KILL_EVERY)
                await asyncio.to_thread(planners[number].kill_and_restart)
                killed += 1
            expected, until_us = await run_out(master, made)
        report = {"leaders killed": killed, **await examine(master, expected, until_us)}
        print(report)
        record_property("failover", report)
        assert_one_job_each(report)


@pytest.mark.asyncio
@pytest.mark.timeout(max(180, SIZES.failover_seconds * 3))
@pytest.mark.slow
@BOTH
async def test_every_tick_is_one_job_while_leaders_are_cut_off_from_the_master(
    sql_url: str, agent_url: str, record_property: Any
) -> None:
    """They still reach the agent, and come back believing what they believed."""
    proxies = [StallingProxy(sql_url) for _ in range(3)]
    try:
        async with build("planner", sql_url, agent_url).connect() as scheduler:
            master = scheduler._master
            planners = [Node("planner", await proxy.start(), agent_url=agent_url) for proxy in proxies]
            with nodes(*planners, Node("worker", sql_url, agent_url=agent_url)) as running:
                await asyncio.gather(*(asyncio.to_thread(started.ready) for started in running))
                made = await make_schedules(scheduler, SIZES.failover_schedules)
                cut_off: list[int] = []
                took_over = 0
                ends = time.monotonic() + SIZES.failover_seconds
                while time.monotonic() < ends or len(cut_off) < FEWEST:
                    number = await next_leader(master, planners, not_before=time.monotonic())
                    proxies[number].stall()
                    back_at = time.monotonic() + CUT_OFF_FOR
                    cut_off.append(number)
                    other = await next_leader(master, planners, not_before=back_at)
                    took_over += other != number
                    proxies[number].go_on()
                expected, until_us = await run_out(master, made)
            report = {
                "leaders cut off": len(cut_off),
                "of which another took over": took_over,
                "pieces held up": sum(proxy.held_up for proxy in proxies),
                **await examine(master, expected, until_us),
            }
            print(report)
            record_property("partition", report)
            assert took_over == len(cut_off)
            assert all(proxies[number].held_up for number in cut_off)
            assert_one_job_each(report)
    finally:
        for proxy in proxies:
            await proxy.close()
