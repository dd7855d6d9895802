"""`jobmaster workers`, `lanes`, `dead-letters`, `operations`, `top`, and `jobs` with `--where`."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jobmaster.model.states import JobState
from tests.support import until
from tests.surface.conftest import Cli
from tests.surface.shell import Shell
from tests.surface.shop import Order, ask, enqueue, fill

APP = ("--app", "tests.surface.shop:cluster")
PATIENCE = 60.0


def told(cli: Cli, *words: str, code: int = 0) -> Any:
    """What a command gives as JSON."""
    done = cli(*words, *APP, "--json")
    assert done.code == code, done.err
    return json.loads(done.out)


@pytest.fixture
def filled(cli: Cli) -> list[str]:
    """Ids of a job that succeeded, one that failed, and one due tomorrow."""
    return fill()


def test_jobs_are_cancelled_retried_and_deleted_by_condition(cli: Cli, filled: list[str]) -> None:
    shipped, lost, later = filled
    done = told(cli, "jobs", "cancel", "--where", "handler=ship", "--yes")
    assert (done["kind"], done["state"], done["total"], done["changed"]) == ("cancel", "done", 1, 1)
    assert ask(lambda scheduler: scheduler.get(later)).state is JobState.CANCELLED
    done = told(cli, "jobs", "retry", "--where", "state=failed,cancelled reason=rejected", "--fresh", "--yes")
    assert done["changed"] == 1
    assert ask(lambda scheduler: scheduler.get(lost)).attempts == 0
    done = told(cli, "jobs", "delete", "--where", "state=succeeded", "--where", "since=1h", "--yes")
    assert done["changed"] == 1
    assert cli("jobs", "show", shipped, *APP).code == 1
    listed = told(cli, "operations", "list")
    assert [one["kind"] for one in listed] == ["delete", "retry", "cancel"]
    assert "@" in listed[0]["who"]
    shown = cli("operations", "show", listed[0]["id"], *APP)
    assert "(delete) is done: 1 of 1 jobs changed" in shown.out
    assert told(cli, "operations", "stop", listed[0]["id"])["state"] == "done"
    assert cli("operations", "list", *APP).code == 0


def test_what_is_meant_is_counted_and_asked_for_first(
    cli: Cli, filled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = cli("jobs", "delete", "--where", "state=failed", *APP)
    assert done.code == 1
    assert "delete 1 jobs?" in done.err
    assert ask(lambda scheduler: scheduler.get(filled[1])).state is JobState.FAILED
    assert told(cli, "operations", "list") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "colour=red"], "one of state, handler"),
        (["--where", "state"], "KEY=VALUE"),
        (["--where", "state=odd"], "awaiting, held"),
        (["--where", "lane=A"], "lane 'A' is not allowed"),
        (["--where", "since=yesterday"], "ISO instant"),
        (["--where", "lane=a", "--where", "lane=b"], "lane once"),
        (["--where", "fingerprint=x"], "twelve hexadecimal digits"),
        (["--where", "'"], "No closing quotation"),
        (["0198", "--where", "lane=a"], "either one job's ID, or --where"),
        ([], "either one job's ID, or --where"),
    ],
)
def test_conditions_that_can_not_be_are_named(cli: Cli, words: list[str], said: str) -> None:
    enqueue("ship", Order(1))
    done = cli("jobs", "cancel", *words, "--yes", *APP)
    assert done.code == 2
    assert said in done.err
    assert ask(lambda scheduler: scheduler.counts()).total(JobState.QUEUED) == 1


def test_a_job_is_changed(cli: Cli, filled: list[str]) -> None:
    later = filled[2]
    words = ("--lane", "slow", "--priority", "high", "--data", '{"number": 9}', "--due", "2031-01-01T00:00:00+00:00")
    job = told(cli, "jobs", "update", later, *words)
    assert (job["lane"], job["priority"], job["data"]["number"]) == ("slow", "HIGH", 9)
    assert job["due_at"].startswith("2031-01-01")
    stale = cli("jobs", "update", later, "--lane", "default", "--version", "1", *APP)
    assert stale.code == 1
    assert "at version" in stale.err
    assert "is not JSON" in cli("jobs", "update", later, "--data", "{", *APP).err
    assert cli("jobs", "update", later, *APP).code == 2
    gone = cli("jobs", "delete", later, "--yes", *APP)
    assert (gone.code, "cancel it first" in gone.err) == (1, True)
    assert cli("jobs", "delete", filled[0], "--yes", *APP).out.startswith("deleted ")


def test_dead_letters_are_grouped_and_redriven(cli: Cli, filled: list[str]) -> None:
    (group,) = told(cli, "dead-letters", "list")["groups"]
    assert (group["handler"], group["reason"], group["count"]) == ("lose", "rejected", 1)
    assert group["fingerprint"] in cli("dead-letters", "list", *APP).out
    done = told(cli, "dead-letters", "redrive", group["fingerprint"], "--rate", "50", "--yes")
    assert done["changed"] == 1
    assert told(cli, "dead-letters", "list")["groups"] == []
    assert cli("dead-letters", "redrive", *APP).code == 2
    assert told(cli, "dead-letters", "redrive", "--all", "--yes")["changed"] == 0


def test_lanes_are_shown_paused_moved_and_purged(cli: Cli, filled: list[str]) -> None:
    enqueue("wait", Order(4), Order(5))
    lanes = {lane["name"]: lane for lane in told(cli, "lanes", "list")}
    assert (lanes["slow"]["agents"][0]["ready"], lanes["slow"]["unserved"]) == (2, True)
    assert lanes["slow"]["unserved_jobs"] == 2
    assert lanes["default"]["held"] == 1
    assert "no worker serves it" in cli("lanes", "list", *APP).out
    assert told(cli, "lanes", "pause", "slow")["paused"] is True
    assert "paused" in cli("lanes", "list", *APP).out
    assert told(cli, "lanes", "resume", "slow", "--agent", "standalone")["paused"] is False
    assert told(cli, "lanes", "drain", "default")["paused"] is True
    assert told(cli, "lanes", "move", "slow", "snail", "--yes")["changed"] == 2
    assert told(cli, "lanes", "purge", "snail", "--yes")["changed"] == 2
    unknown = cli("lanes", "pause", "snial", *APP)
    assert (unknown.code, "expected one of default" in unknown.err) == (2, True)
    assert cli("scale-hint", "--lanes", "default", *APP).out == "0\n"
    assert told(cli, "scale-hint", "--min", "2")["wanted"] == 2


def test_workers_are_told_what_to_do(shell: Shell, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shell.folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    with shell.running("worker", *APP, "--name", "clerk", "--slots", "3") as process:
        (info,) = told(cli, "workers", "list")
        assert (info["name"], info["slots"], info["pid"]) == ("clerk", 3, process.pid)
        assert "0/3" in cli("workers", "list", *APP).out
        assert (info["rss_bytes"] > 1_000_000, "MB" in cli("workers", "list", *APP).out) == (True, True)
        (host,) = told(cli, "hosts", "list")
        assert (host["workers"], host["alive"], host["slots"]) == ([info["id"]], 1, 3)
        assert [host["name"], "1"] == cli("hosts", "list", *APP).out.splitlines()[1].split()[:2]
        assert cli("workers", "quiet", "clerk", *APP).out == f"worker {info['id']} is quiet\n"
        assert told(cli, "workers", "resume", "clerk")[0]["state"] == "running"
        assert told(cli, "workers", "scale", "clerk", "7")[0]["slots"] == 7
        assert "handlers" in cli("workers", "show", info["id"], *APP).out
        assert "clerk" in cli("top", "--once", *APP).out
        assert told(cli, "top")["workers"][0]["slots"] == 7
        unknown = cli("workers", "quiet", "clerc", *APP)
        assert (unknown.code, "did you mean 'clerk'?" in unknown.err) == (1, True)
        refused = cli("workers", "stop", "clerk", *APP)
        assert (refused.code, "stop 1 workers" in refused.err) == (1, True)
        assert cli("workers", "stop", "clerk", "--yes", *APP).code == 0
        until(lambda: process.poll() is not None, PATIENCE, "the process has ended")
        assert process.returncode == 0


def test_modes_of_a_worker_process(shell: Shell) -> None:
    with shell.running("worker", *APP, "--mode", "coordinator", ready="coordinates") as process:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    done = shell("worker", *APP, "--mode", "drain")
    assert (done.returncode, "is running" in done.stdout) == (0, True), done.stderr
    assert Path(shell.folder / "shop.db").exists()
    assert shell("worker", *APP, "--mode", "fast").returncode == 2


def test_top_runs_until_it_is_interrupted(shell: Shell) -> None:
    fast = ("--every", "0.1")
    with shell.running("top", *APP, *fast, ready="slots in use") as process:
        process.terminate()
        assert process.wait(PATIENCE) == 0
