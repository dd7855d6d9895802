"""Census: which jobs stand in the stream, by id and lane. Subjects say both, so no message is read for it.

Listing a stream's subjects takes the server about 3 s for a million. So a list that took long to make serves for a
while: twenty times as long as it took.
"""

from bisect import bisect_left, bisect_right
from time import monotonic

from jobmaster_agents.nats import api
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import lane_of

QUICK_SECONDS = 0.05
"""A list made in that time is made anew every time."""
SHARE = 20
PATIENCE = 60.0


class Census:
    """Of one agent, for one handle."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._jobs: list[tuple[str, str]] = []
        self._until = 0.0

    async def between(self, after_id: str, before_id: str | None = None, *, anew: bool = False) -> list[str]:
        """Ids in order, each once. `anew`: of a list that is made now."""
        if anew:
            self._until = 0.0
        jobs = await self._listed()
        start = bisect_right(jobs, after_id, key=lambda pair: pair[0])
        end = len(jobs) if before_id is None else bisect_left(jobs, before_id, key=lambda pair: pair[0])
        return list(dict.fromkeys(job_id for job_id, _ in jobs[start:end]))

    async def of_lane(self, lane: str | None) -> list[str]:
        """Ids in order, of a lane or of all; listed now."""
        self._until = 0.0
        return list(dict.fromkeys(job_id for job_id, at in await self._listed() if lane in (None, at)))

    async def _listed(self) -> list[tuple[str, str]]:
        begun = monotonic()
        if begun < self._until:
            return self._jobs
        subjects = self._store.subjects
        found = await self._subjects(subjects.jobs)
        self._jobs = sorted((subjects.job_id(subject), lane_of(subject)) for subject in found)
        took = monotonic() - begun
        self._until = begun + SHARE * took if took > QUICK_SECONDS else 0.0
        return self._jobs

    async def _subjects(self, pattern: str) -> list[str]:
        store = self._store
        found: list[str] = []
        while True:
            answer = await api.call(
                store.link,
                f"STREAM.INFO.{store.subjects.jobs_stream}",
                {"subjects_filter": pattern, "offset": len(found)},
                within=PATIENCE,
            )
            page = answer["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= answer.get("total", 0):
                return found
