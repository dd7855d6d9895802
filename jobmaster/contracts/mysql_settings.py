"""What a MySQL or MariaDB server must be set to so that the promises hold on it: pure, shared by the agent and the
master.

A store asks its server each of `MYSQL_QUESTIONS`, on a connection like those that do the work, gives all the answers to
`mysql_faults`, and lets `server_settings.refuse_unless` decide.
"""

import re
from collections.abc import Iterable, Mapping

from jobmaster.contracts.server_settings import SettingFault

OLDEST_MARIADB = (10, 6)
OLDEST_MYSQL = (8, 0, 1)
"""The oldest versions that know SKIP LOCKED. Tested: MariaDB 10.11."""

LEAST_PACKET = 4 << 20
"""Bytes of `max_allowed_packet` into which a job of the largest size fits in any form."""

MYSQL_SESSION: Mapping[str, str] = {
    # Without it a value that does not fit is cut and stored.
    "sql_mode": "'STRICT_TRANS_TABLES,STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
    "time_zone": "'+00:00'",
}
"""What every session of ours is set to, whatever the server's own is."""

MYSQL_SETTINGS = (
    *("version", "default_storage_engine", "sql_mode", "max_allowed_packet", "read_only", "innodb_read_only"),
    *("tx_isolation", "transaction_isolation", "log_bin", "binlog_format", "sync_binlog", "wsrep_on"),
    *("innodb_flush_log_at_trx_commit", "innodb_doublewrite", "innodb_flush_method"),
)

_NAMES = ", ".join(f"'{name}'" for name in MYSQL_SETTINGS)
MYSQL_QUESTIONS = (
    f"SHOW VARIABLES WHERE Variable_name IN ({_NAMES})",
    "SHOW GLOBAL STATUS WHERE Variable_name = 'Slave_running'",
)
"""Each gives (name, value) rows, all text. No privilege is needed for them. MySQL 8 does not tell whether it is a
replica without one: there it shows by `read_only`, which a replica should be set to."""


def mysql_faults(settings: Mapping[str, str]) -> list[SettingFault]:
    """Everything that is wrong with a server whose settings are these; what could not work at all comes first."""
    told = {name.lower(): value for name, value in settings.items()}
    return [*_too_old(told), *_elsewhere(told), *_unusable(told), *_forgetful(told)]


def mysql_facts(settings: Mapping[str, str]) -> dict[str, str]:
    """What an operator may want to see of it."""
    told = {name.lower(): value for name, value in settings.items()}
    log = told.get("log_bin", "unknown").lower()
    return {
        "server": told.get("version", "unknown"),
        "innodb_flush_log_at_trx_commit": told.get("innodb_flush_log_at_trx_commit", "unknown"),
        "binary log": f"sync_binlog = {told.get('sync_binlog', 'unknown')}" if log in ("on", "1") else "off",
        "max_allowed_packet": told.get("max_allowed_packet", "unknown"),
    }


def is_mariadb(version: str) -> bool:
    """Whether a server that calls its version so is a MariaDB."""
    return "mariadb" in version.lower()


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(number or 0) for number in found.groups()) if found else (0,)


def _too_old(told: Mapping[str, str]) -> Iterable[SettingFault]:
    version = told.get("version", "")
    oldest = OLDEST_MARIADB if is_mariadb(version) else OLDEST_MYSQL
    if _numbers(version) < oldest:
        wanted = f"{'MariaDB' if is_mariadb(version) else 'MySQL'} {'.'.join(map(str, oldest))}"
        yield SettingFault(
            "version", version, f"upgrade the server to {wanted} or newer", "statements it does not know would fail"
        )


def _elsewhere(told: Mapping[str, str]) -> Iterable[SettingFault]:
    """Servers of which only another one's word counts."""
    if _is_on(told, "slave_running"):
        yield SettingFault(
            "Slave_running",
            "ON",
            "use the URL of the primary that this replica follows",
            "what it replays would meet what is written here",
        )
    for name in ("read_only", "innodb_read_only"):
        if told.get(name, "OFF").upper() not in ("OFF", "0"):
            remedy = f"use the URL of the primary, or set {name} = OFF if this is it"
            yield SettingFault(name, told[name], remedy, "nothing could be written, or only by some users")
    if _is_on(told, "wsrep_on"):
        yield SettingFault(
            "wsrep_on",
            "ON",
            "use a server that is no node of a Galera cluster",
            "locks hold on one node only, so two workers could get one job, and what one node acknowledged can be lost",
        )


def _unusable(told: Mapping[str, str]) -> Iterable[SettingFault]:
    engine = told.get("default_storage_engine", "InnoDB")
    if engine.lower() != "innodb":
        yield SettingFault(
            "default_storage_engine",
            engine,
            "set default_storage_engine = InnoDB",
            "tables of another engine know no transactions",
        )
    packet = int(told.get("max_allowed_packet", LEAST_PACKET))
    if packet < LEAST_PACKET:
        yield SettingFault(
            "max_allowed_packet",
            str(packet),
            f"set max_allowed_packet = {LEAST_PACKET} or more",
            "a large job could be neither stored nor read",
        )
    if not {"STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"} & set(told.get("sql_mode", "STRICT_ALL_TABLES").split(",")):
        yield SettingFault(
            "sql_mode",
            told["sql_mode"],
            "let sessions set it (no proxy in between that answers for the server), or add STRICT_TRANS_TABLES to it",
            "a value that does not fit would be cut and stored",
        )
    isolation = told.get("transaction_isolation", told.get("tx_isolation", "READ-COMMITTED"))
    if isolation.upper() != "READ-COMMITTED":
        yield SettingFault(
            "transaction_isolation",
            isolation,
            "let sessions set it (no proxy in between that answers for the server), or set it to READ-COMMITTED",
            "claims would lock what they pass by, so that they wait for each other and for every enqueue",
        )
    if _is_on(told, "log_bin") and told.get("binlog_format", "ROW").upper() == "STATEMENT":
        yield SettingFault(
            "binlog_format",
            "STATEMENT",
            "set binlog_format = ROW (or MIXED)",
            "the server refuses to write under READ COMMITTED",
        )


def _forgetful(told: Mapping[str, str]) -> Iterable[SettingFault]:
    # 3 is MariaDB's, and flushes once more than 1 does.
    flush = told.get("innodb_flush_log_at_trx_commit", "1")
    if flush not in ("1", "3"):
        yield SettingFault(
            "innodb_flush_log_at_trx_commit",
            flush,
            "set innodb_flush_log_at_trx_commit = 1",
            "a power failure can lose the jobs that were acknowledged in the last second",
            acceptable=True,
        )
    sync = told.get("sync_binlog", "1")
    if _is_on(told, "log_bin") and sync != "1":
        yield SettingFault(
            "sync_binlog",
            sync,
            "set sync_binlog = 1, or do without the binary log",
            "a power failure can lose acknowledged jobs: what the binary log lacks is rolled back at the start",
            acceptable=True,
        )
    double = told.get("innodb_doublewrite", "ON").upper()
    if double in ("OFF", "0", "DETECT_ONLY"):
        yield SettingFault(
            "innodb_doublewrite",
            double,
            "set innodb_doublewrite = ON",
            "a power failure can leave half-written pages that no recovery repairs",
            acceptable=True,
        )
    if told.get("innodb_flush_method", "").lower() == "nosync":
        yield SettingFault(
            "innodb_flush_method",
            "nosync",
            "set innodb_flush_method = fsync or O_DIRECT",
            "a power failure can lose acknowledged jobs and damage the database",
            acceptable=True,
        )


def _is_on(told: Mapping[str, str], name: str) -> bool:
    return told.get(name, "OFF").upper() in ("ON", "1")
