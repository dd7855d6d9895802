"""The second revision of the schema: what the first has written goes on, and what it reads does no harm."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text

import jobmaster.master.migrations
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.scheduling import ScheduleState
from jobmaster.master.sql.master import SqlMaster
from jobmaster.model.ids import occurrence_id
from jobmaster.model.terms import Overlap, Terms
from jobmaster.recurrence import Recurrence, cron
from jobmaster.testing.clock import START_US
from jobmaster.testing.masters.harness import planning, schedule
from tests.unit.master.conftest import sqlite_master

PREFIX = table_prefix("test")
MINUTE_US = 60_000_000
OLD_ROW = (
    f"INSERT INTO {PREFIX}schedule (key, handler, interval_us, anchor_us, next_us, state, lane, priority, data, "
    "policy, created_us) "
    "VALUES (:key, 'work', :interval_us, :anchor_us, :next_us, :state, 'default', 2, 'null', '{}', 5)"
)


def old_row(key: str, state: str = "active", next_us: int = START_US + MINUTE_US) -> dict[str, Any]:
    return {"key": key, "interval_us": MINUTE_US, "anchor_us": START_US, "next_us": next_us, "state": state}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A master of the first revision, with a schedule in each state."""
    path = tmp_path / "old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(jobmaster.master.migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes.update(connection=connection, prefix=PREFIX)
        command.upgrade(config, "0001")
        for state in ("active", "paused", "ended"):
            connection.execute(text(OLD_ROW), old_row(state, state))
    engine.dispose()
    return path


@pytest.mark.asyncio
async def test_schedules_of_the_first_revision_go_on(old: Path) -> None:
    master = sqlite_master(old)
    await master.open()
    found = {entry.key: entry for entry in await master.schedules()}
    assert {key: entry.state.value for key, entry in found.items()} == {key: key for key in found}
    assert Recurrence.from_json(found["active"].recurrence) == Recurrence.of(timedelta(minutes=1))
    report = await master.plan(planning(ahead_us=2 * MINUTE_US))
    assert [item.job.id for item in report.placements] == [
        occurrence_id("active", START_US + number * MINUTE_US) for number in (1, 2)
    ]
    await master.close()


@pytest.mark.asyncio
async def test_what_a_process_of_the_first_revision_writes_meanwhile_is_understood(master: SqlMaster) -> None:
    tick_us = START_US + MINUTE_US

    def write(connection: Connection) -> None:
        connection.execute(text(OLD_ROW), old_row("theirs"))
        entered = f"INSERT INTO {PREFIX}occurrence (schedule, tick_us, job_id) VALUES ('theirs', :tick, :job)"
        connection.execute(text(entered), {"tick": tick_us, "job": occurrence_id("theirs", tick_us)})

    await master._write(write)
    # Its first tick is planned there already.
    report = await master.plan(planning(ahead_us=2 * MINUTE_US))
    assert [item.job.due_us for item in report.placements] == [tick_us + MINUTE_US]
    ended = f"UPDATE {PREFIX}schedule SET state = 'ended' WHERE key = 'theirs'"
    await master._write(lambda connection: connection.execute(text(ended)).rowcount)
    (found,) = await master.schedules()
    assert found.state is ScheduleState.ENDED
    assert (await master.soonest(["transport-1"])).look_us is None


@pytest.mark.asyncio
async def test_a_process_of_the_first_revision_plans_nothing_that_it_cannot_know(master: SqlMaster) -> None:
    await master.save_schedule(schedule("plain"))
    await master.save_schedule(schedule("cron", cron("* * * * *")))
    await master.save_schedule(schedule("terms", terms=Terms(overlap=Overlap.SKIP)))
    query = text(f"SELECT key, state FROM {PREFIX}schedule")
    rows = await master._read(lambda connection: [(row.key, row.state) for row in connection.execute(query)])
    assert dict(rows) == {"plain": "active", "cron": "paused", "terms": "paused"}
    assert {entry.state for entry in await master.schedules()} == {ScheduleState.ACTIVE}
