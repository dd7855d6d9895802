"""Which tick of a schedule is planned now."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.contracts.entries import Schedule, ScheduleState
from jobmaster.coordination.planner import due_tick, occurrence
from jobmaster.model.ids import occurrence_id
from jobmaster.model.states import JobState

SECOND = 1_000_000


def schedule(next_us: int, interval_us: int = 60 * SECOND, state: ScheduleState = ScheduleState.ACTIVE) -> Schedule:
    return Schedule(
        key="hourly", handler="count", interval_us=interval_us, anchor_us=0, next_us=next_us, state=state, created_us=0
    )


def test_a_tick_that_lies_ahead_is_not_due() -> None:
    assert due_tick(schedule(next_us=100), now_us=99) is None


def test_the_tick_of_this_very_instant_is_due() -> None:
    assert due_tick(schedule(next_us=100), now_us=100) == (100, 100 + 60 * SECOND)


def test_a_schedule_that_is_not_active_has_no_tick() -> None:
    for state in (ScheduleState.PAUSED, ScheduleState.ENDED):
        assert due_tick(schedule(next_us=0, state=state), now_us=10**12) is None


@given(st.integers(0, 10**15), st.integers(SECOND, 10**12), st.integers(0, 10**15))
def test_after_a_downtime_the_latest_missed_tick_is_due_and_the_next_lies_ahead(
    next_us: int, interval_us: int, late_us: int
) -> None:
    now_us = next_us + late_us
    ticks = due_tick(schedule(next_us, interval_us), now_us)
    assert ticks is not None
    tick, following = ticks
    assert tick <= now_us < following == tick + interval_us
    assert (tick - next_us) % interval_us == 0


def test_an_occurrence_says_what_must_still_hold_and_carries_its_job_dispatching() -> None:
    rule = msgspec.structs.replace(schedule(next_us=100), data=b'{"a":1}', priority=1, lane="mail")
    made = occurrence(rule, 100, 200, agent="main", now_us=105, put_deadline=900)
    assert (made.watermark_us, made.tick_us, made.next_us) == (100, 100, 200)
    job = made.placement.job
    assert job.id == occurrence_id("hourly", 100)
    assert (job.state, job.epoch, job.agent) == (JobState.DISPATCHING, 1, "main")
    assert (job.due_us, job.data, job.priority, job.lane, job.schedule) == (100, b'{"a":1}', 1, "mail", "hourly")
    assert made.placement.put_deadline_us == 900
