"""`jobmaster jobs …` and `jobmaster stats` on a small shop."""

import json
import sys
from pathlib import Path

import pytest

from tests.surface.conftest import Cli
from tests.surface.shell import Shell
from tests.surface.shop import HOSTILE, Order, enqueue, fill, fill_hostile

APP = ("--app", "tests.surface.shop:cluster")
UNKNOWN = "0190163d-8694-739b-aea5-966c26f8ad91"


@pytest.fixture
def jobs(cli: Cli) -> list[str]:
    """The ids of a job that succeeded, one that failed, and one that is due tomorrow."""
    return fill()


def listed(cli: Cli, *options: str) -> list[str]:
    done = cli("jobs", "list", *APP, "--json", *options)
    assert done.code == 0, done.err
    return [job["id"] for job in json.loads(done.out)["jobs"]]


def test_a_list_shows_each_job_in_one_line(cli: Cli, jobs: list[str]) -> None:
    done = cli("jobs", "list", *APP)

    assert done.code == 0
    _, *lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == jobs[::-1]
    assert "ship" in lines[2]
    assert "first order" in lines[2]
    assert "failed(rejected)" in lines[1]
    assert "order 2 is lost" in lines[1]


def test_a_list_is_filtered(cli: Cli, jobs: list[str]) -> None:
    shipped, lost, later = jobs

    assert listed(cli, "--state", "succeeded") == [shipped]
    assert listed(cli, "--state", "failed", "--state", "succeeded") == [lost, shipped]
    assert listed(cli, "--handler", "lose") == [lost]
    assert listed(cli, "--handler", "ship") == [later, shipped]
    assert listed(cli, "--tag", "express") == [shipped]
    assert listed(cli, "--lane", "slow") == []
    assert listed(cli, "--since", "2999-01-01T00:00:00+00:00") == []
    assert listed(cli, "--since", "2020-01-01T00:00:00+02:00") == [later, lost, shipped]


def test_a_list_goes_on_at_its_cursor(cli: Cli, jobs: list[str]) -> None:
    first = json.loads(cli("jobs", "list", *APP, "--json", "--limit", "2").out)
    shown = cli("jobs", "list", *APP, "--limit", "2").out.splitlines()[-1]

    assert shown == f"more: --cursor {first['cursor']}"
    assert listed(cli, "--cursor", first["cursor"]) == jobs[:1]


def test_no_match_is_said(cli: Cli, jobs: list[str]) -> None:
    assert cli("jobs", "list", *APP, "--handler", "nobody").out == "no job matches\n"


def test_a_failed_job_is_shown_with_its_traceback_and_how_to_run_it_again(cli: Cli, jobs: list[str]) -> None:
    done = cli("jobs", "show", jobs[1], *APP)

    assert done.code == 0
    assert "failed(rejected)" in done.out
    assert "order 2 is lost" in done.out
    assert f"run it again:  jobmaster jobs retry {jobs[1]} --app tests.surface.shop:cluster" in done.out


def test_a_command_that_is_proposed_can_be_pasted_into_a_shell(cli: Cli, jobs: list[str], tmp_path: Path) -> None:
    (tmp_path / "shop.db").rename(tmp_path / "the shop's.db")

    done = cli("jobs", "show", jobs[1], "--file", "the shop's.db")

    assert f"""jobmaster jobs retry {jobs[1]} --file 'the shop'"'"'s.db'""" in done.out


def test_a_job_that_waits_is_shown_with_how_to_end_it(cli: Cli, jobs: list[str]) -> None:
    done = cli("jobs", "show", jobs[2], *APP)

    assert f"end it:  jobmaster jobs cancel {jobs[2]} --app tests.surface.shop:cluster" in done.out


def test_a_job_is_cancelled_once_and_can_be_run_again(cli: Cli, jobs: list[str]) -> None:
    cancelled = cli("jobs", "cancel", jobs[2], *APP)
    again = cli("jobs", "cancel", jobs[2], *APP)
    retried = cli("jobs", "retry", jobs[2], *APP, "--json")

    assert (cancelled.code, cancelled.out) == (0, f"cancelled {jobs[2]}\n")
    assert (again.code, again.out) == (1, f"{jobs[2]} had ended already: cancelled\n")
    assert retried.code == 0, retried.err
    assert json.loads(retried.out)["state"] == "queued"


def test_only_a_failed_or_cancelled_job_is_retried(cli: Cli, jobs: list[str]) -> None:
    assert cli("jobs", "retry", jobs[1], "--fresh", *APP).code == 0
    refused = cli("jobs", "retry", jobs[0], *APP)
    assert (refused.code, jobs[0] in refused.err, "succeeded" in refused.err) == (1, True, True)


@pytest.mark.parametrize("verb", ["show", "cancel", "retry"])
def test_an_unknown_job_is_named(cli: Cli, verb: str) -> None:
    done = cli("jobs", verb, UNKNOWN, *APP)

    assert done.code == 1
    assert f"job '{UNKNOWN}' was not found" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("show", "nonsense"), "'nonsense'"),
        (("cancel", "\x1b[31m"), "x1b[31m"),
        (("list", "--state", "bogus"), "bogus"),
        (("list", "--since", "yesterday"), "'yesterday'"),
        (("list", "--since", "2026-11-22T08:00:00"), "with an offset"),
        (("list", "--lane", "Bad Lane"), "'bad-lane'"),
        (("list", "--cursor", "abc"), "'abc'"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--limit", "many"), "--limit"),
        (("list", "--tag", "a\x00b"), "tag"),
        (("list", "--nonsense"), "--nonsense"),
    ],
)
def test_a_wrong_call_is_named_and_exits_with_2(cli: Cli, arguments: tuple[str, ...], named: str) -> None:
    done = cli("jobs", *arguments, *APP)

    assert (done.code, done.out) == (2, "")
    assert named in done.err
    assert "\x1b" not in done.err


def test_stats_count_lanes_and_states(cli: Cli, jobs: list[str]) -> None:
    heading, row = cli("stats", *APP).out.splitlines()
    document = json.loads(cli("stats", *APP, "--json").out)

    assert heading.split() == ["lane", "held", "succeeded", "failed", "oldest", "ready"]
    assert row.split() == ["default", "1", "1", "1"]
    assert document["totals"] == {
        "awaiting": 0,
        "held": 1,
        "dispatching": 0,
        "queued": 0,
        "running": 0,
        "succeeded": 1,
        "failed": 1,
        "cancelled": 0,
    }
    assert set(document) == {"totals", "lanes", "capped", "unreachable", "quarantined"}


def test_a_job_in_json_has_these_keys(cli: Cli, jobs: list[str]) -> None:
    document = json.loads(cli("jobs", "show", jobs[1], *APP, "--json").out)

    assert set(document) == {
        *("id", "handler", "lane", "priority", "state", "reason", "agent", "worker", "schedule", "title", "tags"),
        *("metadata", "data", "result", "error", "attempts", "max_attempts", "snoozes", "interrupts", "crashes"),
        *("progress", "progress_note", "timeout", "created_at", "original_due_at", "due_at", "expires_at"),
        *("first_started_at", "finished_at", "epoch", "version", "runs"),
    }
    assert set(document["runs"][0]) == {
        *("token", "attempt", "outcome", "worker", "host", "started_at", "finished_at", "error_type", "message"),
        *("traceback", "log", "progress", "progress_note", "note"),
    }


def test_hostile_text_reaches_no_terminal(cli: Cli) -> None:
    lost, shipped = fill_hostile()
    for arguments in (("list",), ("show", lost), ("show", shipped)):
        out = cli("jobs", *arguments, *APP).out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "[bold]" in out
        assert ":smile:" in out
        assert "\\x1b[2J" in out
    document = json.loads(cli("jobs", "show", shipped, *APP, "--json").out)
    assert document["data"]["text"] == HOSTILE


def test_a_reader_that_goes_away_is_no_fault(shell: Shell, cli: Cli) -> None:
    enqueue("ship", *(Order(number) for number in range(300)))
    program = f"{sys.executable} -m jobmaster jobs list --limit 300 --app tests.surface.shop:cluster --json | head -1"

    done = shell.sh(program)

    assert done.stdout == "{\n"
    assert done.stderr == ""
