"""`jobmaster schedules next` and `explain`: they need no cluster and leave nothing behind."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.surface.conftest import Cli
from tests.surface.shell import Shell

BERLIN = ("--timezone", "Europe/Berlin")


def shown(cli: Cli, *arguments: str) -> list[tuple[str, str | None]]:
    done = cli("schedules", "next", *arguments, "--json")
    assert (done.code, done.err) == (0, "")
    ticks = json.loads(done.out)
    assert all(list(tick) == ["at", "mark"] for tick in ticks)
    return [(tick["at"], tick["mark"]) for tick in ticks]


def test_a_time_in_the_gap_is_marked(cli: Cli) -> None:
    assert shown(cli, "30 2 * * *", *BERLIN, "--after", "2026-03-27T22:00:00Z", "--count", "3") == [
        ("2026-03-28T02:30:00+01:00", None),
        ("2026-03-29T03:00:00+02:00", "gap"),
        ("2026-03-30T02:30:00+02:00", None),
    ]
    assert shown(cli, "30 2 * * *", *BERLIN, "--after", "2026-03-28T12:00:00Z", "--count", "1", "--gap", "skip") == [
        ("2026-03-30T02:30:00+02:00", None)
    ]


def test_both_passes_of_the_repeated_hour_are_marked(cli: Cli) -> None:
    after = ("--after", "2026-10-25T01:45:00+02:00")
    passes = [
        ("2026-10-25T02:00:00+02:00", "fold-1"),
        ("2026-10-25T02:30:00+02:00", "fold-1"),
        ("2026-10-25T02:00:00+01:00", "fold-2"),
        ("2026-10-25T02:30:00+01:00", "fold-2"),
        ("2026-10-25T03:00:00+01:00", None),
    ]
    assert shown(cli, "*/30 * * * *", *BERLIN, *after, "--count", "5") == passes
    assert shown(cli, "0 2 * * *", *BERLIN, *after, "--count", "1") == [passes[0]]
    assert shown(cli, "0 2 * * *", *BERLIN, *after, "--count", "1", "--fold", "last") == [passes[2]]
    assert shown(cli, "0 2 * * *", *BERLIN, *after, "--count", "2", "--fold", "both") == [passes[0], passes[2]]
    assert shown(cli, "every 30 minutes", *BERLIN, "--after", "2026-10-25T01:30:00+02:00", "--count", "5") == passes


def test_the_instant_itself_counts_only_if_asked_for(cli: Cli) -> None:
    at = ("--after", "2026-01-01T09:00:00+00:00", "--count", "1")
    assert shown(cli, "0 9 * * *", *at) == [("2026-01-02T09:00:00+00:00", None)]
    assert shown(cli, "0 9 * * *", *at, "--inclusive") == [("2026-01-01T09:00:00+00:00", None)]


def test_an_interval_counts_from_the_instant_or_its_anchor(cli: Cli) -> None:
    after = ("--after", "2026-01-01T00:00:07Z", "--count", "1")
    assert shown(cli, "every 5 minutes", *after) == [("2026-01-01T00:05:07+00:00", None)]
    assert shown(cli, "every 5 minutes", *after, "--anchor", "2020-01-01T00:00:00Z") == [
        ("2026-01-01T00:05:00+00:00", None)
    ]


def test_a_text_brings_its_zone(cli: Cli) -> None:
    text = "every weekday at 18:00 in Europe/Berlin"
    assert shown(cli, text, "--after", "2026-11-20T18:00:00Z", "--count", "1") == [("2026-11-23T18:00:00+01:00", None)]


def test_no_occurrence_is_an_empty_list(cli: Cli) -> None:
    assert shown(cli, "0 0 * * *", "--after", "9999-12-31T23:00:00Z") == []
    assert cli("schedules", "next", "0 0 * * *", "--after", "9999-12-31T23:00:00Z").out == "no occurrence any more\n"


def test_without_an_instant_it_is_now(cli: Cli) -> None:
    before = datetime.now(UTC)
    (at, _), *others = shown(cli, "* * * * *")
    assert len(others) == 9
    assert 0 <= (datetime.fromisoformat(at) - before).total_seconds() <= 120


def test_a_person_reads_one_line_an_occurrence(cli: Cli) -> None:
    done = cli("schedules", "next", "30 2 * * *", *BERLIN, "--after", "2026-03-28T12:00:00Z", "--count", "2")
    assert done.out.splitlines() == [
        "2026-03-29T03:00:00+02:00  Sun  gap: moved: the clocks leave its local time out",
        "2026-03-30T02:30:00+02:00  Mon",
    ]


def test_an_expression_is_explained(cli: Cli) -> None:
    assert cli("schedules", "explain", "*/15 9-17 * * MON-FRI", *BERLIN).out.splitlines() == [
        "every 15 minutes, from 09:00 to 17:59, Monday to Friday, in Europe/Berlin",
        "where the clocks change: a local time that the clocks leave out: not; one that comes twice: both times",
    ]
    assert cli("schedules", "explain", "@daily").out == "at 00:00, every day, in UTC\n"
    assert json.loads(cli("schedules", "explain", "@daily", "--gap", "skip", "--json").out) == {
        "kind": "cron",
        "expression": "@daily",
        "timezone": "UTC",
        "words": "at 00:00, every day, in UTC",
        "gap": "skip",
        "fold": "first",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["0 0 31 2 *"], "'31' is no day of FEB: it would never happen"),
        (["*/0 * * * *"], "a step of 0"),
        (["5-1 * * * *"], "runs backwards"),
        (["0 0 * * *", "--timezone", "Europe/Nowhere"], "'Europe/Nowhere' is not a time zone"),
        (["0 0 * * *", "--timezone", "../../etc/localtime"], "is not a time zone"),
        (["0 0 * * *", "--after", "2026-01-01T00:00:00"], "--after='2026-01-01T00:00:00' is not allowed"),
        (["0 0 * * *", "--after", "tomorrow"], "an ISO instant with an offset"),
        (["every day", "--anchor", "x"], "--anchor='x'"),
        (["0 0 * * *", "--gap", "both"], "gap='both' is not allowed; expected 'shift' or 'skip'"),
        (["0 0 * * *", "--fold", "none"], "fold='none' is not allowed; expected 'first', 'last' or 'both'"),
        (["every day at 9"], "'9' is not understood; expected a time of day"),
        (["* * * * *\x1b[2J"], "has no meaning"),
    ],
)
def test_a_fault_is_one_message_and_exit_code_2(cli: Cli, arguments: list[str], says: str) -> None:
    done = cli("schedules", "next", *arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "\x1b" not in done.err


def test_a_process_of_its_own_needs_no_cluster_and_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    done = shell("schedules", "next", "@hourly", "--after", "2026-01-01T00:00:00Z", "--count", "1", "--json")
    assert json.loads(done.stdout) == [{"at": "2026-01-01T01:00:00+00:00", "mark": None}]
    assert [*tmp_path.iterdir()] == []
