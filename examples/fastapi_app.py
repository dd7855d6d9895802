"""A web application that answers at once and does the work behind: one process, one SQLite file.

    pip install fastapi uvicorn
    uvicorn --app-dir examples fastapi_app:app
    curl -X POST localhost:8000/welcome -H 'Content-Type: application/json' -d '{"user_id": "user_123"}'
    curl localhost:8000/jobs/ID

To work in other processes, leave out `cluster.start()` for `async with cluster.connect() as scheduler`, and run
`jobmaster worker --app fastapi_app:cluster` as often as needed.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response, status

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler, JobNotFound, JobState, NameInvalid, Scheduler


@dataclass
class Welcome:
    user_id: str


class SendWelcome(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Welcome]) -> str:
        return f"welcome, {job.data.user_id}"


@dataclass
class Accepted:
    id: str


@dataclass
class Status:
    id: str
    state: JobState
    result: Any
    error: str | None


async def get_scheduler(request: Request) -> Scheduler:
    scheduler: Scheduler = request.app.state.scheduler
    return scheduler


SchedulerHere = Annotated[Scheduler, Depends(get_scheduler)]


async def welcome(data: Welcome, scheduler: SchedulerHere, request: Request, response: Response) -> Accepted:
    """Once this has answered, the job is stored: it survives a crash of this process."""
    job = await scheduler.once_now(SendWelcome, data)
    response.headers["Location"] = str(request.url_for("show_job", job_id=job.id))
    return Accepted(job.id)


async def show_job(job_id: str, scheduler: SchedulerHere) -> Status:
    try:
        job = await scheduler.get(job_id)
    except (JobNotFound, NameInvalid) as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND, str(error)) from error
    return Status(job.id, job.state, job.result, job.error)


def create_app(cluster: Cluster) -> FastAPI:
    """The application around a cluster, which runs as long as the application does."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runtime = await cluster.start()
        app.state.scheduler = runtime.scheduler
        try:
            yield
        finally:
            await runtime.stop()

    app = FastAPI(title="Shop", lifespan=lifespan)
    app.post("/welcome", status_code=status.HTTP_202_ACCEPTED)(welcome)
    app.get("/jobs/{job_id}")(show_job)
    return app


cluster = (
    ClusterBuilder("shop").use_master(os.environ.get("SHOP_DATABASE", "sqlite:///shop.db")).add_handlers(SendWelcome)
).build()
app = create_app(cluster)
