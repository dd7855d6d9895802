"""The users of `deploy/mysql_roles.sql`: each can do its work, and no more."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest

from tests.servers import Mariadb, ask, connected, create_database
from tests.system.test_postgres_roles import ROOT, each_does_its_work

SCRIPT = ROOT / "deploy" / "mysql_roles.sql"


@pytest.fixture
def url(own_mariadb: Callable[..., Mariadb]) -> str:
    """A database in which the script has run, twice; users belong to the server, so it is one of its own."""
    created = create_database(own_mariadb().url)
    lines = [line for line in SCRIPT.read_text().splitlines() if not line.startswith("--")]
    for _ in range(2):
        with connected(created) as connection, connection.cursor() as cursor:
            for statement in " ".join(lines).split(";"):
                if statement.strip():
                    cursor.execute(statement)
    return created


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"jobmaster_{user}:let-me-in@{parts.hostname}:{parts.port}").geturl()


def denied(url: str, statement: str) -> bool:
    try:
        ask(url, statement)
    except pymysql.err.OperationalError as error:
        return bool(error.args[0] == 1142)
    return False


@pytest.mark.timeout(120)
def test_each_user_can_do_its_work_and_no_more(url: str, tmp_path: Path) -> None:
    migrate, app, read = (as_user(url, user) for user in ("migrate", "app", "read"))
    for user in (migrate, app, read):
        with pytest.raises(pymysql.err.OperationalError):
            ask(user, "SELECT 1")
    # An account of the installation that has no name goes before one for any host.
    ask(url, "DELETE FROM mysql.global_priv WHERE User = ''")
    ask(url, "FLUSH PRIVILEGES")
    for name in ("migrate", "app", "read"):
        ask(url, f"ALTER USER jobmaster_{name} IDENTIFIED BY 'let-me-in' ACCOUNT UNLOCK")

    each_does_its_work(tmp_path, migrate, app, read)

    tables = [name for (name,) in ask(migrate, "SHOW TABLES")]
    assert len(tables) > 10
    history = next(name for name in tables if name.endswith("history"))
    for user in (app, read):
        assert denied(user, "CREATE TABLE mine (n int)")
        assert denied(user, f"DROP TABLE {history}")
        assert denied(user, f"TRUNCATE {history}")
        assert denied(user, f"ALTER TABLE {history} ADD COLUMN more int")
    assert denied(read, f"DELETE FROM {history}")
    assert not denied(app, f"DELETE FROM {history}")
    assert not denied(migrate, f"ALTER TABLE {history} ADD COLUMN more int")
