"""What is shown of jobs and runs, hostile rows included."""

from datetime import UTC, datetime, timedelta

from jobmaster.model.detail import RunDetail
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunError, RunOutcome
from jobmaster.model.priority import Priority
from jobmaster.views import Unreadable, job_info, run_info


def test_a_row_that_nobody_here_wrote_is_shown_and_not_raised() -> None:
    info = job_info(
        Job(
            id="x",
            handler="h",
            priority=99,
            created_us=-(2**62),
            original_due_us=2**62,
            due_us=0,
            data=b"\xff{",
            result=b"[" * 5_000,
            policy=b"no policy",
            labels=b"[1]",
            error="",
        )
    )
    assert (info.data, info.result) == (Unreadable(2), Unreadable(5_000))
    assert (info.priority, info.tags, info.metadata) == (Priority.VERY_LOW, (), {})
    assert info.created_at == datetime.min.replace(tzinfo=UTC)
    assert info.original_due_at == datetime.max.replace(tzinfo=UTC)


def test_a_run_shows_its_whole_error_its_log_and_its_duration() -> None:
    error = RunError("shop.OutOfStock", "no more\ntea", "Traceback …")
    run = Run(
        job_id="x",
        token=(2 << 32) | 3,
        attempt=2,
        worker="w",
        host="here",
        started_us=1_000_000,
        finished_us=3_500_000,
        outcome=RunOutcome.FAILED,
        error=error.line(),
        detail=RunDetail(error=error, log=("one", "two"), progress=40).encode(),
    )
    info = run_info(run)
    assert (info.error_type, info.message, info.traceback) == ("shop.OutOfStock", "no more\ntea", "Traceback …")
    assert (info.log, info.progress, info.epoch, info.claim) == (("one", "two"), 40, 2, 3)
    assert info.duration == timedelta(seconds=2.5)


def test_a_run_whose_detail_cannot_be_read_still_shows_the_first_line_of_its_error() -> None:
    run = Run(
        job_id="x",
        token=1,
        attempt=1,
        worker="w",
        host="here",
        started_us=None,
        finished_us=1,
        outcome=RunOutcome.LAPSED,
        error="ValueError: bad: worse",
        detail=b"\x00",
    )
    info = run_info(run)
    assert (info.error_type, info.message, info.traceback, info.duration) == ("ValueError", "bad: worse", None, None)
    assert "can't be read" in (info.note or "")
