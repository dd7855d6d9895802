"""Schedules in code, and what becomes of them when the code changes between two starts.

    REPORTS_RELEASE=1 jobmaster run --app schedules_app:cluster     # from this folder
    REPORTS_RELEASE=2 jobmaster schedules diff --app schedules_app:cluster
    REPORTS_RELEASE=2 jobmaster run --app schedules_app:cluster
    REPORTS_RELEASE=2 jobmaster schedules list --app schedules_app:cluster

The second release changes one schedule, adds one and drops one. The changed one keeps its key and its history; the
dropped one goes on for `retire_after`, so that a release that is rolled back finds it as it was.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

from jobmaster import ClusterBuilder, JobContext, JobHandler, Schedules, StaticProfile, cron, scheduled

RELEASE = int(os.environ.get("REPORTS_RELEASE", "1"))


@dataclass
class Recipients:
    group: str


class SendReport(JobHandler[Recipients]):
    async def execute(self, job: JobContext[Recipients]) -> str:
        return f"report for {job.data.group}"


class CleanUp(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return "clean"


@scheduled(timedelta(seconds=1), overlap="skip")
class Pulse(JobHandler):
    """Its only schedule stands over it, and is called as it is: `pulse`."""

    async def execute(self, job: JobContext) -> str:
        return "alive"


class Reports(StaticProfile):
    profile_id = "reports"

    def configure(self, schedules: Schedules) -> None:
        sales_at = "0 9 * * MON-FRI" if RELEASE == 1 else "0 8 * * MON-FRI"
        sales = Recipients("sales")
        schedules.add(SendReport, cron(sales_at, timezone="Europe/Berlin"), sales, key="sales-report", overlap="skip")
        if RELEASE == 1:
            schedules.add(CleanUp, "every day at 03:00", key="clean-up")
        else:
            schedules.add(SendReport, "every monday at 07:30", Recipients("board"), key="board-report", misfire="skip")


builder = ClusterBuilder("reports").add_handlers(SendReport, CleanUp, Pulse).add_profiles(Reports)
builder.use_sqlite_for_master(os.environ.get("REPORTS_FILE", "reports.db"))
cluster = builder.build()
