"""The agent's server is restarted, or its clock set, while long jobs run: nobody is taken for dead because of it."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from jobmaster import JobState, Runtime, StoreError
from jobmaster.contracts.values import JobFilter
from jobmaster.views import JobInfo
from tests.servers import Mariadb, Postgres
from tests.servers.errors import Unavailable
from tests.servers.faketime import FakeClock, library
from tests.servers.fixtures import missing
from tests.sizes import FULL_ONLY, SIZES
from tests.support import eventually, recorded
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Pack, Wait, Work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio,
    pytest.mark.timeout(180 + 6 * SIZES.outage_seconds + 8 * SIZES.lease_seconds),
]

TTL = SIZES.lease_seconds
MARGIN = TTL / 6
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(MARGIN),
}
LONG = 8
RECOVERY_SECONDS = 15.0
AN_HOUR = 3_600.0
BOTH = pytest.mark.parametrize("sql_kind", ["postgres", pytest.param("mysql", marks=FULL_ONLY)], indirect=True)


@contextmanager
def shop_on(folder: Path, server: Postgres | Mariadb) -> Iterator[Fleet]:
    """Master and agent on that server."""
    with fleet(folder, server.url, {"transport-1": server.url}, LEASES) as made:
        yield made


async def long_jobs(shop: Fleet, runtime: Runtime, gate: Path) -> list[str]:
    """Jobs that run until the gate opens, in this process and in another one."""
    await shop.worker("--agent", "transport-1", "--slots", str(LONG // 2))
    await runtime.add_worker(slots=LONG // 2)
    ids = [(await runtime.scheduler.once_now(Wait, {"until": str(gate)})).id for _ in range(LONG)]
    await eventually(lambda: running(runtime, LONG), within=20)
    return ids


async def running(runtime: Runtime, count: int) -> bool:
    page = await runtime.agents["transport-1"].peek(JobFilter(states=frozenset({JobState.RUNNING})), None, 100)
    return len(page.jobs) == count


async def works_again(runtime: Runtime) -> float:
    """Seconds until a job can be enqueued and has run; the slots are taken, so it has a worker of its own."""
    began = time.monotonic()

    async def enqueued() -> bool:
        try:
            job = await runtime.scheduler.once_now(Pack, Work(), lane="mail")
            return bool(await job.result(timeout=RECOVERY_SECONDS))
        except StoreError:
            return False

    await eventually(enqueued, within=RECOVERY_SECONDS)
    return time.monotonic() - began


async def passed(seconds: float) -> None:
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began >= seconds, within=seconds + 10)


async def all_run_again(runtime: Runtime) -> None:
    """Return once all long jobs run, after the reapers, who waited, have had their chance."""
    await passed(TTL + 2 * MARGIN)
    await eventually(lambda: running(runtime, LONG), within=TTL + RECOVERY_SECONDS)


async def ended(runtime: Runtime, ids: list[str]) -> list[JobInfo]:
    for job_id in ids:
        await runtime.scheduler.result(job_id, timeout=TTL + RECOVERY_SECONDS)
    return [await recorded(runtime.scheduler, job_id) for job_id in ids]


def outcomes(infos: list[JobInfo]) -> Counter[str]:
    return Counter(str(run.outcome) for info in infos for run in info.runs)


def assert_nobody_was_taken_for_dead(infos: list[JobInfo]) -> None:
    assert Counter(info.state for info in infos) == {JobState.SUCCEEDED: LONG}
    assert [(info.attempts, info.crashes) for info in infos] == [(0, 0)] * LONG


@BOTH
async def test_three_restarts_under_long_jobs_crash_nobody(
    tmp_path: Path, own_server: Callable[..., Postgres | Mariadb]
) -> None:
    server = own_server()
    gate = tmp_path / "gate"
    with shop_on(tmp_path, server) as shop:
        async with shop.cluster().run() as runtime:
            ids = await long_jobs(shop, runtime, gate)
            await runtime.add_worker(slots=2, lanes=["mail"])
            recovered = []
            for end in (server.stop, server.kill, server.stop):
                await asyncio.to_thread(end)
                await passed(SIZES.outage_seconds)
                await asyncio.to_thread(server.start)
                recovered.append(await works_again(runtime))
                await all_run_again(runtime)
            gate.touch()
            infos = await ended(runtime, ids)
    print(f"works again after {', '.join(f'{seconds:.2f} s' for seconds in recovered)}")
    print(f"runs of the {LONG} jobs by outcome: {dict(outcomes(infos))}")
    assert_nobody_was_taken_for_dead(infos)


class SetClock:
    """The clock that statements see, set for all sessions at once: a function before the one of Postgres."""

    def __init__(self, server: Postgres) -> None:
        self._url = server.url
        self._do("CREATE SCHEMA moved")
        self._do("CREATE TABLE moved.by AS SELECT interval '0' AS difference")
        self._do(
            "CREATE FUNCTION moved.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
            "'SELECT pg_catalog.clock_timestamp() + difference FROM moved.by'"
        )
        # Named, pg_catalog comes in its turn, not first.
        self._do("ALTER DATABASE postgres SET search_path = public, moved, pg_catalog")

    def set(self, seconds: float) -> None:
        self._do(f"UPDATE moved.by SET difference = interval '{seconds} seconds'")

    def _do(self, statement: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_store_whose_clock_jumps_expires_nobody(
    tmp_path: Path, own_postgres: Callable[..., Postgres], hours: int
) -> None:
    server = own_postgres()
    infos = await jump(tmp_path, server, SetClock(server), hours)
    assert_nobody_was_taken_for_dead(infos)
    assert outcomes(infos)["lapsed"] == 0


@pytest.mark.skipif(SIZES.name == "short", reason="a server under libfaketime is slow, and some of its processes hang")
@pytest.mark.parametrize("hours", [1, -1])
@BOTH
async def test_a_server_whose_clock_jumps_crashes_nobody(
    tmp_path: Path, own_server: Callable[..., Postgres | Mariadb], clock: FakeClock, hours: int
) -> None:
    """All of its processes, which read the time while they handle signals: libfaketime may hang them, as an outage."""
    infos = await jump(tmp_path, own_server(environment=clock.environment), clock, hours)
    assert_nobody_was_taken_for_dead(infos)


@pytest.fixture
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakeClock:
    try:
        library()
    except Unavailable as error:
        missing(str(error))
    folder = tmp_path_factory.mktemp("clock")
    # Servers run as another user, who has to come by. How many folders there are depends on who runs the tests.
    for path in (folder, *folder.parents):
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(0o755)
    return FakeClock(folder / "offset")


async def jump(folder: Path, server: Postgres | Mariadb, clock: SetClock | FakeClock, hours: int) -> list[JobInfo]:
    """Long jobs before, during and after a jump of the clock; what became of them."""
    gate = folder / "gate"
    with shop_on(folder, server) as shop:
        async with shop.cluster().run() as runtime:
            before = ahead(runtime)
            ids = await long_jobs(shop, runtime, gate)
            await runtime.add_worker(slots=2, lanes=["mail"])
            await passed(TTL + MARGIN + 1)
            clock.set(hours * AN_HOUR)
            await eventually(lambda: ahead(runtime) == before + hours, within=30, what="the process goes by that clock")
            recovered = await works_again(runtime)
            await all_run_again(runtime)
            gate.touch()
            infos = await ended(runtime, ids)
    print(f"{hours:+} h: works again after {recovered:.2f} s; runs by outcome: {dict(outcomes(infos))}")
    return infos


def ahead(runtime: Runtime) -> int:
    """By how many hours this process thinks that its agent's clock is ahead of its own."""
    return round((runtime.agents.time("transport-1").now_us() / 1e6 - time.time()) / AN_HOUR)
