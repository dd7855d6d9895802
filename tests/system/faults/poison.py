"""Many small jobs, one of which takes its process down: started again and again by a supervisor, which is the test."""

import asyncio
import os
import sys
import uuid
from pathlib import Path

from jobmaster import ClusterBuilder, Enqueue, JobContext, JobHandler, JobState

SPACE = uuid.UUID("0f3bb1b0-93a8-4a5e-93ec-0d3c6f6c9d22")


class Work(JobHandler):
    async def execute(self, job: JobContext) -> int:
        await asyncio.sleep(0.02)  # the handler's work: long enough for a hundred to be under way at once
        if job.data["poison"]:
            os._exit(1)
        return 0


async def main() -> None:
    file, jobs = Path(sys.argv[1]), int(sys.argv[2])
    config = ClusterBuilder("poison").add_handlers(Work).use_master(f"sqlite:///{file}").log(level="error")
    config.add_worker("poisoned").slots(100).prefetch(200)
    async with config.build().run() as runtime:
        await runtime.scheduler.many(
            Enqueue(Work, {"poison": number == jobs // 2}, id=uuid.uuid5(SPACE, str(number))) for number in range(jobs)
        )
        ended = 0
        while ended < jobs:
            await asyncio.sleep(0.05)  # the handler's work: this program is not the test, it is its subject
            counts = await runtime.scheduler.counts()
            ended = counts.total(JobState.SUCCEEDED) + counts.total(JobState.FAILED)


asyncio.run(main())
