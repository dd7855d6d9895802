"""Accounts of a load: what was acknowledged while something went wrong, and what became of it."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

from jobmaster import Indeterminate, Refused, Runtime
from jobmaster.contracts.namespace import table_prefix
from tests.servers import ask
from tests.support import eventually
from tests.system.fleet.processes import Fleet
from tests.system.fleet.shop import Pack, Work


class Accounts:
    """Enqueues jobs of `Pack` from several tasks, through whatever happens, and counts the answers."""

    def __init__(self, fleet: Fleet, *, enqueuers: int = 4, room: int = 200) -> None:
        self.acknowledged: list[str] = []
        self.refused = 0
        self.doubtful: list[str] = []
        """Of unknown fate: they may be there or not, but not twice."""
        self._fleet = fleet
        self._enqueuers = enqueuers
        self._room = room
        self._going = True
        self._begun = self._read = 0

    @contextlib.asynccontextmanager
    async def enqueuing(self, runtime: Runtime) -> AsyncIterator[None]:
        """During the block."""
        tasks = [asyncio.create_task(self._enqueue(runtime)) for _ in range(self._enqueuers)]
        try:
            yield
            self._going = False
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _enqueue(self, runtime: Runtime) -> None:
        while self._going:
            try:
                job = await runtime.scheduler.once_now(Pack, Work())
            except Indeterminate as error:
                if error.job_id is not None:
                    self.doubtful.append(error.job_id)
            except Refused:
                self.refused += 1
            else:
                self.acknowledged.append(job.id)
            await eventually(self._may_go_on, within=120, what="the jobs that were enqueued begin")

    def _may_go_on(self) -> bool:
        return not self._going or len(self.acknowledged) - self.begun <= self._room

    @property
    def begun(self) -> int:
        """Runs that began."""
        if self._fleet.notes_file.exists():
            with self._fleet.notes_file.open("rb") as notes:
                notes.seek(self._read)
                # Whoever writes may be in the middle of the last line.
                new = notes.read().rpartition(b"\n")[0]
            self._read += len(new)
            self._begun += new.count(b"begins ")
        return self._begun

    async def begun_after(self, since: float, within: float = 60.0) -> float:
        """How long after `since` (monotonic) jobs were being run again."""
        enough = self.begun + 20
        await eventually(lambda: self.begun >= enough, within=within, what="something runs again")
        return time.monotonic() - since


async def history(url: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """As the master's tables have it: the state of each job, and the outcomes of its runs."""
    prefix = table_prefix("fleet")
    jobs = await asyncio.to_thread(ask, url, f"SELECT CAST(id AS char(36)), state FROM {prefix}history")
    runs = await asyncio.to_thread(
        ask, url, f"SELECT CAST(job_id AS char(36)), outcome FROM {prefix}run ORDER BY token"
    )
    outcomes: dict[str, list[str]] = {}
    for job_id, outcome in runs:
        outcomes.setdefault(job_id, []).append(outcome)
    assert len({job_id for job_id, _ in jobs}) == len(jobs)
    return {job_id: str(state) for job_id, state in jobs}, outcomes


async def _count(url: str) -> int:
    [(count,)] = await asyncio.to_thread(ask, url, f"SELECT count(*) FROM {table_prefix('fleet')}history")
    return int(count)


async def _left(url: str, expected: set[str]) -> str:
    """What has not ended, and what the master takes it for."""
    states, _ = await history(url)
    live = await asyncio.to_thread(
        ask, url, f"SELECT CAST(id AS char(36)), state, agent FROM {table_prefix('fleet')}job"
    )
    missing = expected - states.keys()
    known = Counter(f"{state} on {agent}" for job_id, state, agent in live if job_id in missing)
    unknown = len(missing) - known.total()
    return f"{len(missing)} of {len(expected)} have not ended: {dict(known)}, {unknown} not known to the master"


async def balanced(accounts: Accounts, url: str, within: float = 60.0) -> dict[str, int]:
    """Wait until everything acknowledged has succeeded, as long as something more ends every `within` seconds; then
    nothing may have been committed twice, and nothing be there that nobody enqueued. Gives figures worth telling."""
    expected = set(accounts.acknowledged)
    seen = -1

    async def more() -> bool:
        nonlocal seen
        before, seen = seen, await _count(url)
        if seen >= len(expected):
            # Among them may be some whose put was never answered, instead of some that are still missing.
            seen = len(expected & (await history(url))[0].keys())
        return seen > before

    while seen < len(expected):
        try:
            await eventually(more, within=within)
        except AssertionError:
            raise AssertionError(await _left(url, expected)) from None
    states, outcomes = await history(url)
    assert expected <= states.keys()
    assert set(states.values()) <= {"succeeded"}, states
    assert states.keys() <= expected | set(accounts.doubtful)
    committed = [job_id for job_id, ended in outcomes.items() if ended.count("succeeded") != 1]
    assert not committed, f"committed more than once, or never: {committed[:3]}"
    assert all(ended[-1] == "succeeded" for ended in outcomes.values())
    return {
        "acknowledged": len(expected),
        "refused": accounts.refused,
        "indeterminate": len(accounts.doubtful),
        "run again": sum(len(ended) - 1 for ended in outcomes.values()),
    }
