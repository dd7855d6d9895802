"""A process whose jobs are harmless but for one, which ends the process: run again and again by its test.

`crasher FILE JOBS enqueue` stores the jobs; `crasher FILE JOBS run` works until all of them are terminal.
"""

import asyncio
import os
import sys

from jobmaster import ClusterBuilder, JobContext, JobHandler
from jobmaster.enqueue import Enqueue
from jobmaster.model.states import JobState
from jobmaster.scheduler import Scheduler
from tests.support import eventually

POISON = 500


class Work(JobHandler):
    async def execute(self, job: JobContext) -> int:
        number = int(job.data["number"])
        if number == POISON:
            os._exit(9)
        return number


async def all_ended(scheduler: Scheduler, jobs: int) -> bool:
    counts = await scheduler.counts()
    return sum(counts.total(state) for state in (JobState.SUCCEEDED, JobState.FAILED)) == jobs


async def main(path: str, jobs: int, what: str) -> None:
    config = ClusterBuilder("crashes").add_handlers(Work).log(level="warning")
    config.use_sqlite_for_master(path)
    config.add_agent("standalone").use_sqlite_for_agent(path)
    config.add_worker().agent("standalone").slots(100).prefetch(200)
    cluster = config.build()
    if what == "enqueue":
        async with cluster.connect() as scheduler:
            await scheduler.many(Enqueue(Work, {"number": number}) for number in range(jobs))
        return
    async with cluster.run() as runtime:
        await eventually(lambda: all_ended(runtime.scheduler, jobs), within=45)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
