"""`jobmaster schedules …` on a small shop."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.surface.conftest import Cli
from tests.surface.shop import HOSTILE, ask

APP = ("--app", "tests.surface.shop:cluster")


@pytest.fixture
def shop(cli: Cli) -> Cli:
    """With two schedules, one of them with a hostile key."""
    ask(lambda scheduler: scheduler.recurring("ship", "every hour", {"number": 1}, key="hourly"))
    key = HOSTILE.replace("\x1b", "").replace("\x07", "")
    ask(lambda scheduler: scheduler.recurring("ship", timedelta(days=1), {"number": 2}, key=key))
    return cli


def test_a_list_shows_each_schedule_in_one_line(shop: Cli) -> None:
    done = shop("schedules", "list", *APP)
    assert done.code == 0
    _, *lines = done.out.splitlines()
    assert len(lines) == 2
    assert [line for line in lines if line.startswith("hourly") and "every hour" in line and "active" in line]
    assert "\u202e" not in done.out
    assert {entry["key"] for entry in json.loads(shop("schedules", "list", *APP, "--json").out)} >= {"hourly"}


def test_a_schedule_is_paused_resumed_run_and_cancelled(shop: Cli) -> None:
    assert shop("schedules", "pause", "hourly", *APP).out == "hourly is paused\n"
    assert shop("schedules", "pause", "hourly", *APP).out == "hourly is paused already\n"
    assert json.loads(shop("schedules", "resume", "hourly", *APP, "--json").out)["schedule"]["state"] == "active"
    job = shop("schedules", "run-now", "hourly", *APP).out.strip()
    assert json.loads(shop("jobs", "show", job, *APP, "--json").out)["schedule"] == "hourly"
    assert shop("schedules", "cancel", "hourly", *APP).out == "hourly is ended\n"
    assert shop("schedules", "resume", "hourly", *APP).out == "hourly has ended, so it is not active\n"


def test_a_range_is_backfilled_and_shown(shop: Cli) -> None:
    since = datetime.now(UTC) - timedelta(hours=3)
    filled = json.loads(shop("schedules", "backfill", "hourly", "--since", since.isoformat(), *APP, "--json").out)
    assert filled == {"planned": 3, "present": 0}
    shown = json.loads(shop("schedules", "show", "hourly", *APP, "--json").out)
    assert [tick["note"] for tick in shown["occurrences"]] == ["backfill"] * 3
    assert len(shown["next"]) == 5
    assert "latest ticks" in shop("schedules", "show", "hourly", *APP).out


def test_the_next_ticks_of_a_schedule(shop: Cli) -> None:
    ticks = json.loads(shop("schedules", "next", "--key", "hourly", "--count", "3", *APP, "--json").out)
    assert len(ticks) == 3
    assert shop("schedules", "next", *APP).code == 2


def test_what_is_not_there_is_an_error_of_one_line(shop: Cli) -> None:
    for command in ("show", "pause", "resume", "cancel", "run-now"):
        done = shop("schedules", command, "nobody", *APP)
        assert (done.code, done.out) == (1, "")
        assert "'nobody' was not found" in done.err
