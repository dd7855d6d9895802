"""The roles of `deploy/postgres_roles.sql`: each can do its work, and no more."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.servers import Postgres, create_database

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "postgres_roles.sql"

PROGRAM = """
import asyncio, os
from jobmaster import ClusterBuilder, JobContext, JobHandler

class Greet(JobHandler[dict]):
    async def execute(self, job: JobContext[dict]) -> str:
        return "hello"

config = ClusterBuilder("shop").add_handlers(Greet)
config.use_master(os.environ["URL"], migrate=False)
config.add_agent("transport-1").use_agent(os.environ["URL"], migrate=False)
config.add_worker().agent("transport-1").slots(5)
cluster = config.build()

async def main() -> None:
    async with cluster.run() as runtime:
        jobs = [await runtime.scheduler.once_now(Greet) for _ in range(20)]
        held = await runtime.scheduler.once_now(Greet, durability="master")
        print({await job.result(timeout=20) for job in [*jobs, held]})

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
def url(own_postgres: Callable[..., Postgres]) -> str:
    """A database in which the script has run, twice; roles belong to the server, so it is one of its own."""
    created = create_database(own_postgres().url)
    for _ in range(2):
        with psycopg.connect(created, autocommit=True) as connection:
            connection.execute(SCRIPT.read_bytes())
    return created


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"jobmaster_{role}@{parts.hostname}:{parts.port}").geturl()


def run(folder: Path, url: str, *command: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "agents"), str(folder)])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBMASTER_")}
    environment |= {"PYTHONPATH": paths, "URL": url}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def denied(url: str, statement: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute(statement.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


def each_does_its_work(folder: Path, migrate: str, app: str, read: str) -> None:
    """Nobody but `migrate` makes the tables; `app` works on them; `read` looks. Each is a URL."""
    (folder / "shop.py").write_text(PROGRAM)
    cluster = ("-m", "jobmaster")

    early = run(folder, app, "shop.py")
    assert early.returncode != 0
    assert "jobmaster migrate" in early.stderr

    assert run(folder, app, *cluster, "migrate", "--app", "shop:cluster").returncode != 0
    migrated = run(folder, migrate, *cluster, "migrate", "--app", "shop:cluster")
    assert migrated.returncode == 0, migrated.stderr + migrated.stdout

    worked = run(folder, app, "shop.py")
    assert (worked.returncode, worked.stdout.strip()) == (0, "{'hello'}"), worked.stderr
    listed = run(folder, read, *cluster, "jobs", "list", "--app", "shop:cluster", "--json")
    assert listed.returncode == 0, listed.stderr + listed.stdout
    assert len(json.loads(listed.stdout)["jobs"]) == 21
    shown = run(folder, read, *cluster, "stats", "--app", "shop:cluster")
    assert shown.returncode == 0, shown.stderr + shown.stdout


@pytest.mark.timeout(300)
def test_each_role_can_do_its_work_and_no_more(url: str, tmp_path: Path) -> None:
    migrate, app, read = (as_role(url, role) for role in ("migrate", "app", "read"))
    each_does_its_work(tmp_path, migrate, app, read)

    with psycopg.connect(migrate) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'jobmaster'")
        ]
    assert len(tables) > 10
    history = next(name for name in tables if name.endswith("history"))
    cut = f"SELECT {history.removesuffix('history')}cut('01ffffff-0000-0000-0000-000000000000')"
    assert denied(read, cut)
    assert not denied(app, cut)
    for role in (app, read):
        assert denied(role, "CREATE TABLE mine (n int)")
        assert denied(role, f"DROP TABLE {history}")
        assert denied(role, f"TRUNCATE {history}")
        assert denied(role, f"ALTER TABLE {history} ADD COLUMN more int")
    assert denied(read, f"DELETE FROM {history}")
    assert not denied(app, f"DELETE FROM {history}")
