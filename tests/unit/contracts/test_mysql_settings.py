"""What a MySQL or MariaDB server must be set to."""

import pytest

from jobmaster.contracts.mysql_settings import MYSQL_SETTINGS, is_mariadb, mysql_facts, mysql_faults
from jobmaster.contracts.server_settings import refuse_unless
from jobmaster.model.errors import UnsafeStore

MARIADB = {
    "version": "10.11.14-MariaDB-0+deb12u2",
    "default_storage_engine": "InnoDB",
    "sql_mode": "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION",
    "max_allowed_packet": "16777216",
    "read_only": "OFF",
    "innodb_read_only": "OFF",
    "tx_isolation": "READ-COMMITTED",
    "log_bin": "OFF",
    "binlog_format": "MIXED",
    "sync_binlog": "0",
    "wsrep_on": "OFF",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "innodb_flush_method": "O_DIRECT",
    "Slave_running": "OFF",
}
MYSQL = {
    **{name: value for name, value in MARIADB.items() if name not in ("tx_isolation", "wsrep_on", "Slave_running")},
    "version": "8.0.36",
    "transaction_isolation": "READ-COMMITTED",
    "log_bin": "ON",
    "binlog_format": "ROW",
    "sync_binlog": "1",
}

UNUSABLE = [
    ({"version": "10.5.23-MariaDB"}, "version", "MariaDB 10.6"),
    ({"version": "5.7.44-log"}, "version", "MySQL 8.0.1"),
    ({"version": "8.0.0-dmr"}, "version", "MySQL 8.0.1"),
    ({"Slave_running": "ON"}, "Slave_running", "primary"),
    ({"read_only": "ON"}, "read_only", "primary"),
    ({"read_only": "NO_LOCK"}, "read_only", "primary"),
    ({"innodb_read_only": "ON"}, "innodb_read_only", "primary"),
    ({"wsrep_on": "ON"}, "wsrep_on", "Galera"),
    ({"default_storage_engine": "MyISAM"}, "default_storage_engine", "InnoDB"),
    ({"max_allowed_packet": "1048576"}, "max_allowed_packet", "4194304"),
    ({"sql_mode": "ANSI_QUOTES"}, "sql_mode", "STRICT_TRANS_TABLES"),
    ({"tx_isolation": "REPEATABLE-READ"}, "transaction_isolation", "READ-COMMITTED"),
    ({"log_bin": "ON", "binlog_format": "STATEMENT", "sync_binlog": "1"}, "binlog_format", "ROW"),
]
FORGETFUL = [
    ({"innodb_flush_log_at_trx_commit": "2"}, "innodb_flush_log_at_trx_commit", "last second"),
    ({"innodb_flush_log_at_trx_commit": "0"}, "innodb_flush_log_at_trx_commit", "last second"),
    ({"log_bin": "ON", "sync_binlog": "0"}, "sync_binlog", "rolled back"),
    ({"innodb_doublewrite": "OFF"}, "innodb_doublewrite", "half-written"),
    ({"innodb_doublewrite": "DETECT_ONLY"}, "innodb_doublewrite", "half-written"),
    ({"innodb_flush_method": "nosync"}, "innodb_flush_method", "damage"),
]


def test_the_safe_example_answers_every_setting_asked_for() -> None:
    assert set(MARIADB) | set(MYSQL) == {*MYSQL_SETTINGS, "Slave_running"}


@pytest.mark.parametrize("settings", [MARIADB, MYSQL], ids=["mariadb", "mysql"])
def test_a_safe_server_has_no_fault(settings: dict[str, str]) -> None:
    assert mysql_faults(settings) == []


@pytest.mark.parametrize(("change", "setting", "remedy"), UNUSABLE)
def test_what_cannot_work_is_refused_whatever_is_accepted(change: dict[str, str], setting: str, remedy: str) -> None:
    with pytest.raises(UnsafeStore) as refusal:
        refuse_unless("store", mysql_faults({**MARIADB, **change}), accept_unsafe=True)

    assert refusal.value.setting == setting
    assert remedy in refusal.value.remedy
    assert "accept_unsafe" not in str(refusal.value)


@pytest.mark.parametrize(("change", "setting", "promise"), FORGETFUL)
def test_what_forgets_is_refused_or_accepted_by_name(change: dict[str, str], setting: str, promise: str) -> None:
    faults = mysql_faults({**MARIADB, **change})

    with pytest.raises(UnsafeStore, match=promise) as refusal:
        refuse_unless("store", faults, accept_unsafe=False)

    assert refusal.value.setting == setting
    assert "accept_unsafe" in refusal.value.remedy
    [finding] = refuse_unless("store", faults, accept_unsafe=True)
    assert setting in finding


def test_a_binary_log_that_is_off_need_not_be_flushed() -> None:
    assert mysql_faults({**MARIADB, "log_bin": "OFF", "sync_binlog": "0"}) == []


def test_facts_say_what_the_server_is() -> None:
    assert mysql_facts(MARIADB)["binary log"] == "off"
    assert mysql_facts(MYSQL) == {
        "server": "8.0.36",
        "innodb_flush_log_at_trx_commit": "1",
        "binary log": "sync_binlog = 1",
        "max_allowed_packet": "16777216",
    }
    assert is_mariadb(MARIADB["version"])
    assert not is_mariadb(MYSQL["version"])
