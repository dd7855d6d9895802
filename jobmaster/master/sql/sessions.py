"""What the master's sessions on a database server are set to."""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL

from jobmaster.contracts.mysql_settings import MYSQL_SESSION

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 60.0
"""A statement that is not answered for so long is given up. Who can't wait that long has a limit of their own."""

POSTGRES: Mapping[str, str] = {
    "application_name": "jobmaster master",
    "statement_timeout": "60000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "30000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # Every statement of the master has an index to go by. But plans are made early, and kept until statistics come: on
    # tables that were empty then, the cheapest plan reads them whole, and goes on doing so when they hold a million
    # rows (measured: 260 records a second instead of 25,000). Compiling takes longer than any of ours runs.
    "enable_seqscan": "off",
    # Nor has it to sort what an index gives in order; where it has to, this forbids nothing.
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

MYSQL: Mapping[str, str] = {**MYSQL_SESSION, "innodb_lock_wait_timeout": "10"}
_MARIADB: Mapping[str, str] = {"max_statement_time": "60", "idle_transaction_timeout": "30"}
"""Besides, where the server is one; in seconds."""
_MYSQL_8: Mapping[str, str] = {"max_execution_time": "60000"}
"""In ms, and for reading only: it has no more."""

_PATIENT = {"statement_timeout": "0", "lock_timeout": "600000", "idle_in_transaction_session_timeout": "0"}


def connect_arguments(backend: str, patient: bool = False, tls: ssl.SSLContext | None = None) -> dict[str, Any]:
    """What the driver is given beside the URL; `patient` for changes of the schema."""
    if backend == "postgresql" and patient:
        return {"timeout": CONNECT_SECONDS, "server_settings": {**POSTGRES, **_PATIENT}}
    if backend == "postgresql":
        return {"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS, "server_settings": dict(POSTGRES)}
    # Each takes the comment that is meant for it as part of the statement.
    from jobmaster.mysql_connecting import connect  # the driver is an extra

    own = "" if patient else f"/*M!, {_assigned(_MARIADB)} *//*!80000, {_assigned(_MYSQL_8)} */"
    return {
        "connect_timeout": CONNECT_SECONDS,
        "charset": "utf8mb4",
        "init_command": f"SET {_assigned(MYSQL)}{own}",
        "ssl": tls,
        "async_creator_fn": connect,
    }


def encryption_of(url: URL) -> tuple[URL, dict[str, str]]:
    """A Postgres URL without `sslmode` and what belongs to it (`sslrootcert` and so on), and the same as an argument of
    the driver: it knows them, though only in a URL of its own, and SQLAlchemy would pass them on one by one."""
    found = {name: value for name, value in url.query.items() if name.startswith("ssl")}
    if not found or url.get_backend_name() != "postgresql":
        return url, {}
    plain = url.difference_update_query(found)
    return plain, {"dsn": f"postgresql://?{urlencode(found, doseq=True)}"}


def _assigned(settings: Mapping[str, str]) -> str:
    return ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
