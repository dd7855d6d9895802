"""What a handler sees of its job, and how it speaks back."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from jobmaster.model.errors import OptionInvalid
from jobmaster.model.job import Job
from jobmaster.model.policy import Labels
from jobmaster.model.priority import Priority
from jobmaster.worker.context import JobContext
from jobmaster.worker.joblog import KEPT_CHARACTERS, KEPT_LINES
from jobmaster.worker.lease import Ending, Lease

JOB_ID = "01890000-0000-7000-8000-000000000001"


class Holding:
    """Stands in for the lease keeper."""

    worker_id = "w-1"

    def __init__(self) -> None:
        self.now = 0.0
        self.reports = 0

    def mono(self) -> float:
        return self.now

    def progressed(self, lease: Lease) -> None:
        self.reports += 1


def a_context(holder: Holding | None = None, **fields: Any) -> JobContext[Any]:
    given: dict[str, Any] = {"created_us": 1_000_000, "original_due_us": 1_000_000, "due_us": 2_500_000} | fields
    job = Job(id=JOB_ID, handler="send-welcome", claim_seq=3, epoch=2, **given)
    return JobContext(Lease(job, holder or Holding(), 0.0, 12.5), {"user_id": "u"}, cast("Any", None))


def test_it_shows_the_job() -> None:
    labels = Labels(title="Welcome", tags=("a", "b"), metadata={"tenant": 7}).encode()
    job = a_context(lane="mail", priority=Priority.HIGH, attempts=2, labels=labels)

    assert (job.id, job.idempotency_key, job.handler, job.lane) == (JOB_ID, JOB_ID, "send-welcome", "mail")
    assert (job.priority, job.attempt, job.token) == (Priority.HIGH, 3, 2 << 32 | 3)
    assert (job.title, job.tags, job.metadata) == ("Welcome", ("a", "b"), {"tenant": 7})
    assert job.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert job.due_at == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)
    assert job.data == {"user_id": "u"}
    assert JOB_ID in repr(job)


def test_a_lease_is_valid_until_its_trust_ends() -> None:
    holder = Holding()
    job = a_context(holder)
    seen = [job.lease_valid]
    holder.now = 12.4
    seen.append(job.lease_valid)
    holder.now = 12.5
    seen.append(job.lease_valid)

    assert seen == [True, True, False]


@pytest.mark.parametrize(
    ("ending", "valid"),
    [
        (Ending.CANCELLED, False),
        (Ending.LOST, False),
        (Ending.DISTRUSTED, False),
        (Ending.TIMED_OUT, True),
        (Ending.STOPPING, True),
    ],
)
def test_every_ending_shows_as_cancelled_but_not_every_one_ends_the_lease(ending: Ending, valid: bool) -> None:
    job = a_context()
    before = job.cancelled
    job._lease.ending = ending

    assert (before, job.cancelled) == (False, True)
    assert job.lease_valid is valid


def test_progress_is_kept_and_told_to_the_keeper() -> None:
    holder = Holding()
    job = a_context(holder)

    job.progress(10)
    job.progress(33.9, "a third")

    assert job._lease.progress == (33, "a third")
    assert holder.reports == 2


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan"), float("inf"), True, "50", None])
def test_a_percentage_outside_its_range_is_refused(percent: Any) -> None:
    with pytest.raises(OptionInvalid, match="from 0 to 100"):
        a_context().progress(percent)


@pytest.mark.parametrize("note", ["x" * 201, "a\x00b", "\ud800", 5])
def test_a_note_no_store_could_keep_is_refused(note: Any) -> None:
    with pytest.raises(OptionInvalid, match="at most 200 characters"):
        a_context().progress(5, note)


def test_log_lines_reach_the_log_with_the_jobs_fields_and_are_kept() -> None:
    job = a_context()

    with structlog.testing.capture_logs() as logged:
        job.log.info("sent", to="a@b.c", count=2)
        job.log.warning("slow")

    assert logged[0] == {
        "event": "sent",
        "log_level": "info",
        "to": "a@b.c",
        "count": 2,
        "job_id": JOB_ID,
        "handler": "send-welcome",
        "attempt": 1,
        "lane": "default",
        "worker": "w-1",
    }
    assert job.log.lines == ("info: sent to=a@b.c count=2", "warning: slow")


def test_only_the_last_lines_are_kept_and_long_ones_are_cut_visibly() -> None:
    job = a_context()

    with structlog.testing.capture_logs():
        for number in range(KEPT_LINES + 10):
            job.log.debug("step", number=number)
        job.log.error("x" * 10_000)

    assert len(job.log.lines) == KEPT_LINES
    assert job.log.lines[0] == "debug: step number=11"
    assert "characters)" in job.log.lines[-1]
    assert len(job.log.lines[-1]) < KEPT_CHARACTERS + 50


def test_a_line_never_raises_and_is_always_storable() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    job = a_context()

    with structlog.testing.capture_logs():
        job.log.info("a\x00b\ud800", value=BrokenError(), event="twice")

    for line in job.log.lines:
        line.encode()
        assert "\x00" not in line
