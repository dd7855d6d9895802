"""`jobmaster doctor` on sound set-ups and on broken ones, each fault with what it is about and what to do."""

import asyncio
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobmaster import ClusterBuilder
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import Control, ControlKind
from jobmaster.diagnosis import make_agent
from jobmaster.master.migrations import HEAD as MASTER_HEAD
from jobmaster_agents.sqlite.schema import HEAD as AGENT_HEAD
from tests.surface.conftest import Cli
from tests.surface.shell import Shell
from tests.surface.shop import Order, build, enqueue, fill

APP = ("--app", "tests.surface.shop:cluster")


@dataclass
class Diagnosis:
    code: int
    findings: list[dict[str, str]]

    def at(self, level: str) -> list[str]:
        return [f"{finding['subject']}: {finding['text']}" for finding in self.findings if finding["level"] == level]

    @property
    def fault(self) -> str:
        """The only one."""
        (fault,) = self.at("fault")
        return fault


def diagnosed(cli: Cli, *arguments: str) -> Diagnosis:
    done = cli("doctor", *arguments, "--json")
    return Diagnosis(done.code, json.loads(done.out))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_before_the_first_run_it_says_what_will_be_created_and_creates_nothing(cli: Cli, tmp_path: Path) -> None:
    found = diagnosed(cli, *APP)

    assert (found.code, found.at("fault")) == (0, [])
    assert sum("creates the schema" in note for note in found.at("note")) == 2
    assert files(tmp_path) == {}


def test_an_empty_file_and_one_of_another_program_are_left_as_they_are(cli: Cli, tmp_path: Path) -> None:
    for prepare in ("", "CREATE TABLE theirs (x)"):
        with sqlite3.connect(tmp_path / "shop.db") as connection:
            connection.execute(prepare)
        connection.close()
        before = files(tmp_path)

        found = diagnosed(cli, *APP)

        assert (found.code, found.at("fault")) == (0, [])
        assert files(tmp_path) == before


def test_a_file_that_ran_is_sound_and_left_as_it_is(cli: Cli, tmp_path: Path) -> None:
    fill()
    before = files(tmp_path)

    found = diagnosed(cli, *APP)
    shown = cli("doctor", *APP)

    assert (found.code, found.at("fault")) == (0, [])
    assert any("schema 0001" in finding for finding in found.at("ok"))
    assert any("journal_mode wal" in finding for finding in found.at("ok"))
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "nothing is wrong")
    assert files(tmp_path) == before


def test_a_cluster_that_runs_is_sound(cli: Cli, shell: Shell) -> None:
    with shell.running("run", *APP):
        found = diagnosed(cli, *APP)

    assert (found.code, found.at("fault")) == (0, [])
    assert any("1 live workers" in note for note in found.at("note"))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite:///missing/folder/shop.db", "folder does not exist; create it or name another file"),
        ("sqlite:///here/.", "expected a database file, found something else"),
        ("sqlite:///note.txt", "not an SQLite database; name another file"),
    ],
)
def test_a_store_that_cannot_be_reached_is_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, named: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "note.txt").write_text("no database, though it is long enough to be looked at as one " * 20)
    monkeypatch.setenv("SHOP_DATABASE", url)
    (tmp_path / "shop_here.py").write_text("from tests.surface.shop import build\n")

    found = diagnosed(cli, "--app", "shop_here:build")

    assert found.code == 1
    assert [named in fault for fault in found.at("fault")] == [True, True]
    assert found.at("fault")[0].startswith(f"master {url}: ")
    assert found.at("fault")[1].startswith(f"agent standalone {url}: ")


def test_a_server_that_does_not_answer_is_named_without_its_password(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "jobmaster.toml").write_text(
        'name = "shop"\n'
        'master = {url = "postgresql://clerk:s3cret@127.0.0.1:1/shop"}\n'
        'agents.local = {url = "sqlite:///shop.db"}\n'
    )

    done = cli("doctor")

    assert done.code == 1
    fault = next(line for line in done.out.splitlines() if line.startswith("fault"))
    assert "127.0.0.1:1/shop" in fault
    assert "check that the server runs" in fault or "driver 'asyncpg' is not installed" in fault
    assert "s3cret" not in done.out


@pytest.mark.parametrize(("tier", "table"), [("master", "revision"), ("agent standalone", "version")])
def test_an_old_schema_is_named_and_left_for_migrate(cli: Cli, tmp_path: Path, tier: str, table: str) -> None:
    fill()
    prefix = table_prefix("shop") if tier == "master" else table_prefix("shop", "standalone")
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute(f"UPDATE {prefix}{table} SET version_num = '0000'")
    connection.close()
    before = files(tmp_path)

    found = diagnosed(cli, *APP)

    assert found.code == 1
    assert found.fault.startswith(f"{tier} sqlite:///shop.db: ")
    head = MASTER_HEAD if tier == "master" else AGENT_HEAD
    assert f"schema version is '0000', expected '{head}'; run `jobmaster migrate`" in found.fault
    assert files(tmp_path) == before


def test_a_schema_of_a_later_release_asks_for_an_upgrade(cli: Cli, tmp_path: Path) -> None:
    fill()
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute(f"UPDATE {table_prefix('shop')}revision SET version_num = '9999'")
    connection.close()

    fault = diagnosed(cli, *APP).fault

    assert "'9999'" in fault
    assert "upgrade" in fault


def test_a_file_that_lost_wal_is_named_and_migrate_mends_it(cli: Cli, tmp_path: Path) -> None:
    fill()
    connection = sqlite3.connect(tmp_path / "shop.db")
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    before = files(tmp_path)

    found = diagnosed(cli, *APP)

    assert found.code == 1
    assert [("journal_mode is 'delete'" in fault, "jobmaster migrate" in fault) for fault in found.at("fault")] == [
        (True, True),
        (True, True),
    ]
    assert files(tmp_path) == before
    assert cli("migrate", *APP).code == 0
    assert diagnosed(cli, *APP).code == 0


def test_wal_that_is_refused_is_named(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds the file without WAL: it can be turned to WAL by nobody."""
    fill()
    monkeypatch.setattr("jobmaster.sqlite.looking.BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")

    found = diagnosed(cli, *APP)
    holder.close()

    assert found.code == 1
    assert all("shop.db: it is locked by another process" in fault for fault in found.at("fault"))


def test_jobs_whose_handler_no_worker_knows_are_named(cli: Cli) -> None:
    enqueue("ship", Order(1), Order(2))

    found = diagnosed(cli, *APP)

    assert found.code == 1
    lane, handler = found.at("fault")
    assert "lane 'default': 2 jobs wait and no live worker serves it; start one with this lane" in lane
    assert "handler 'ship': 2 of the newest 2 waiting jobs need it and no live worker knows it; start a" in handler


def test_a_live_worker_that_does_not_know_the_handler_does_not_help(cli: Cli, shell: Shell) -> None:
    (shell.folder / "bakery.py").write_text(
        "from jobmaster import ClusterBuilder, JobHandler\n"
        "class Bake(JobHandler):\n"
        "    async def execute(self, job): ...\n"
        "cluster = ClusterBuilder('shop').use_master('sqlite:///shop.db').add_handlers(Bake).build()\n"
    )
    with shell.running("run", "--app", "bakery:cluster"):
        enqueue("ship", Order(1))
        found = diagnosed(cli, *APP)

    assert found.code == 1
    assert "handler 'ship': 1 of the newest 1" in found.fault


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ('name = "shop"\ntimezone = "Europe/Atlantis"\n', "Europe/Atlantis"),
        ('name = "shop"\nslotz = 3\n', "slotz"),
        ('name = "shop"\n[timings]\nlease_tll = 3\n', "timings.lease_tll"),
        ("name = shop\n", "jobmaster.toml"),
    ],
)
def test_settings_that_cannot_be_are_named(cli: Cli, tmp_path: Path, settings: str, named: str) -> None:
    (tmp_path / "jobmaster.toml").write_text(settings)

    found = diagnosed(cli)

    assert found.code == 1
    assert found.fault.startswith("settings: ")
    assert named in found.fault


def test_every_fault_of_the_settings_is_told_at_once_whatever_its_source(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobmaster.toml").write_text('name = "shop"\ntimezone = "Mars/Olympus"\n[limits]\ndata_byte = 1\n')
    monkeypatch.setenv("JOBMASTER_TIMINGS__PLAN_AHED", "60")

    found = diagnosed(cli)
    shown = cli("doctor")

    assert found.code == 1
    assert len(found.at("fault")) == 3
    for named in ("Mars/Olympus", "limits.data_byte", "timings.plan_ahed"):
        assert any(named in fault for fault in found.at("fault"))
    assert shown.out.splitlines()[-1] == "3 faults"


def test_a_variable_that_sets_nothing_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMASTER_SLOTZ", "3")
    monkeypatch.setenv("JOBMASTER_TIMNGS__POLL", "3")

    (near,) = diagnosed(cli, "--app", "tests.surface.shop:build").at("fault")
    monkeypatch.delenv("JOBMASTER_TIMNGS__POLL")
    found = diagnosed(cli, "--app", "tests.surface.shop:build")

    assert "'JOBMASTER_TIMNGS__POLL'" in near
    assert "did you mean JOBMASTER_TIMINGS__POLL?" in near
    assert found.code == 0
    assert "environment: JOBMASTER_SLOTZ is no setting, and sets nothing" in found.at("note")


def test_what_lies_in_quarantine_is_named(cli: Cli, tmp_path: Path) -> None:
    fill()
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute(
            f"INSERT INTO {table_prefix('shop')}quarantine (agent, seq, at_us, error, raw) "
            "VALUES ('standalone', 1, 1, 'it cannot be read', x'00')"
        )
    connection.close()

    fault = diagnosed(cli, *APP).fault

    assert "1 records could not be applied and are kept in quarantine" in fault
    assert "from agent standalone: it cannot be read" in fault


def test_an_agent_that_hands_out_nothing_is_named(cli: Cli) -> None:
    fill()
    cluster = build()

    async def pause(agent: AgentTransport) -> None:
        await agent.open()
        await agent.control(Control(ControlKind.PAUSE))
        await agent.close()

    run_async(pause(make_agent(cluster.settings, "standalone", SystemClock(), migrate=True)))

    assert "it is paused: nothing is claimed from it" in diagnosed(cli, *APP).fault


def test_a_store_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobmaster import diagnosis
    from jobmaster.master.memory import MemoryMaster

    async def never(self: MemoryMaster) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryMaster, "open", never)
    monkeypatch.setattr(diagnosis, "LOOK_SECONDS", 0.01)
    cluster = ClusterBuilder("shop").use_master("memory:").build()

    found = run_async(diagnosis.diagnose(cluster))

    (master,) = (finding for finding in found if finding.subject.startswith("master"))
    assert master.level is diagnosis.Level.FAULT
    assert master.text == "it did not answer within 0 s; check its address and whether it runs"


def test_migrate_may_be_repeated(cli: Cli) -> None:
    first, second = (cli("migrate", *APP) for _ in range(2))

    assert (first.code, second.code) == (0, 0)
    assert first.out == second.out
    assert first.out.splitlines() == [
        f"master sqlite:///shop.db: schema at revision {MASTER_HEAD}",
        f"agent standalone: schema at revision {AGENT_HEAD}",
    ]
