"""A handler that another module imports."""

from jobmaster import JobContext, JobHandler


class Tick(JobHandler):
    async def execute(self, job: JobContext) -> None: ...
