"""`jobmaster run` and `jobmaster worker` as processes: what they serve, and how they stop."""

import json
import signal
import sqlite3
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder, JobState
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import Signal, SignalKind
from jobmaster.diagnosis import make_agent
from tests.surface.conftest import Cli
from tests.surface.shell import SECONDS, Shell, interrupted
from tests.surface.shop import Order, ask, build, enqueue

APP = ("--app", "tests.surface.shop:cluster")


def test_the_first_signal_drains_and_the_second_gives_running_jobs_back(cli: Cli, shell: Shell) -> None:
    (waiting,) = enqueue("wait", Order(1))
    with shell.running("run", *APP, ready="waiting with order 1") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        for line in process.stdout:
            if "draining" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        code = process.wait(SECONDS)

    assert (code, rest.splitlines()[-1]) == (0, "stopped")
    job = ask(lambda scheduler: scheduler.get(waiting))
    assert (job.state, job.attempts, job.interrupts) == (JobState.QUEUED, 0, 1)


def test_sigterm_stops_like_ctrl_c(shell: Shell) -> None:
    with shell.running("run", *APP) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def test_a_worker_that_is_told_to_stop_through_its_agent_ends_the_process(cli: Cli, shell: Shell) -> None:
    cluster = build()

    async def tell(agent: AgentTransport) -> None:
        await agent.open()
        (card,) = await agent.workers()
        await agent.signal([Signal(worker=card.id, kind=SignalKind.STOP)])
        await agent.close()

    with shell.running("run", *APP) as process:
        run_async(tell(make_agent(cluster.settings, "standalone", SystemClock(), migrate=True)))
        assert process.stdout is not None
        rest = process.stdout.read()
        assert (process.wait(SECONDS), rest.splitlines()[-1]) == (0, "stopped")


def test_a_worker_serves_its_lanes_and_no_others(cli: Cli, shell: Shell) -> None:
    (shipped,) = enqueue("ship", Order(1))
    enqueue("wait", Order(2))
    with shell.running("worker", *APP, "--lanes", "default", "--slots", "2", "--name", "extra") as process:
        assert ask(lambda scheduler: scheduler.result(shipped, timeout=SECONDS)) == "shipped 1"
        (worker,) = ask(lambda scheduler: scheduler.operations.workers())
        counts = ask(lambda scheduler: scheduler.counts())
        assert interrupted(process)[0] == 0

    assert (worker.name, worker.lanes, worker.slots) == ("extra", ("default",), 2)
    assert counts.lanes["slow"].states[JobState.QUEUED] == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("worker", *APP, "--lanes", "Default,x"), "'default'"),
        (("worker", *APP, "--agent", "nobody"), "'nobody'"),
        (("worker", *APP, "--slots", "0"), "--slots"),
        (("worker", *APP, "--name", "A b"), "'a-b'"),
        (("run", "--app", "tests.surface.shop"), "MODULE:NAME"),
        (("run", "--app", "tests.surface.shop:nothing"), "'nothing'"),
        (("run", "--app", "tests.surface.shop:Order"), "calling it failed: TypeError"),
        (("run", "--app", "tests.surface.shop:HOSTILE"), "'HOSTILE' is str"),
        (("run", "--app", "nowhere.at.all:cluster"), "'nowhere'"),
        (("run", "--config", "nowhere.toml"), "nowhere.toml: no such file"),
        (("run",), "no cluster given"),
        (("stats", "--file", "nowhere.db"), "nowhere.db"),
    ],
)
def test_a_call_that_names_no_cluster_or_worker_exits_with_2(cli: Cli, arguments: tuple[str, ...], named: str) -> None:
    done = cli(*arguments)

    assert done.code == 2
    assert named in done.err


def test_an_application_that_fails_to_import_is_named_with_file_and_line(shell: Shell) -> None:
    (shell.folder / "broken.py").write_text("x = 1\nimport nothing_like_this\n")
    (shell.folder / "typo.py").write_text("def f(:\n")

    imported, typo = (shell("stats", "--app", f"{name}:cluster") for name in ("broken", "typo"))

    assert (imported.returncode, typo.returncode) == (2, 2)
    assert "ModuleNotFoundError: No module named 'nothing_like_this'" in imported.stderr
    assert "broken.py, line 2" in imported.stderr
    assert "SyntaxError" in typo.stderr
    assert "typo.py, line 1" in typo.stderr


def test_a_file_names_its_cluster_itself_and_asks_where_it_holds_several(cli: Cli, tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "shop.db").close()
    empty = cli("stats", "--file", "shop.db")
    enqueue("ship", Order(1))
    alone = cli("stats", "--file", "shop.db")
    unknown = cli("stats", "--file", "shop.db", "--cluster", "other")
    second = ClusterBuilder("my-other_shop").use_master("sqlite:///shop.db").build()
    run_async(connected(second))
    several = cli("stats", "--file", "shop.db")
    chosen = cli("stats", "--file", "shop.db", "--cluster", "my-other_shop")

    assert (empty.code, "shop.db" in empty.err) == (2, True)
    assert (alone.code, alone.out.splitlines()[1].split()[:2]) == (0, ["default", "1"])
    assert (unknown.code, "'shop'" in unknown.err) == (2, True)
    assert (several.code, "'my-other_shop', 'shop'" in several.err) == (2, True)
    assert (chosen.code, chosen.out) == (0, "no jobs yet\n")


async def connected(cluster: Cluster) -> None:
    async with cluster.connect():
        pass


def test_versions_are_told(cli: Cli) -> None:
    assert [line.split()[0] for line in cli("version").out.splitlines()] == ["jobmaster", "python", "sqlite"]
    assert set(json.loads(cli("version", "--json").out)) == {"jobmaster", "python", "sqlite"}
