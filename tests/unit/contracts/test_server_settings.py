"""What a Postgres server must be set to."""

import pytest

from jobmaster.contracts.server_settings import (
    POSTGRES_SETTINGS,
    postgres_facts,
    postgres_faults,
    postgres_findings,
    refuse_unless,
)
from jobmaster.model.errors import UnsafeStore

SAFE = {
    "server_version": "15.4 (Debian 15.4-1)",
    "server_version_num": "150004",
    "server_encoding": "UTF8",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "data_checksums": "off",
    "autovacuum": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "in_recovery": "off",
}

FORGETFUL = [
    ("fsync", "off", "damage"),
    ("full_page_writes", "off", "half-written"),
    ("synchronous_commit", "off", "power failure"),
    ("synchronous_commit", "local", "fail-over"),
]
UNUSABLE = [
    ("server_version_num", "120017", "server_version"),
    ("in_recovery", "on", "pg_is_in_recovery"),
    ("default_transaction_read_only", "on", "default_transaction_read_only"),
    ("server_encoding", "SQL_ASCII", "server_encoding"),
    ("default_transaction_isolation", "repeatable read", "default_transaction_isolation"),
]


def test_the_safe_example_answers_every_setting_asked_for() -> None:
    assert set(SAFE) == {*POSTGRES_SETTINGS, "in_recovery"}


def test_a_safe_server_has_no_fault_and_no_finding() -> None:
    for commit in ("on", "remote_write", "remote_apply"):
        settings = {**SAFE, "synchronous_commit": commit}
        assert postgres_faults(settings) == []
        assert refuse_unless("store", postgres_faults(settings), accept_unsafe=False) == ()
    assert postgres_findings(SAFE) == []


@pytest.mark.parametrize(("setting", "value", "promise"), FORGETFUL)
def test_what_forgets_is_refused_by_name_and_remedy(setting: str, value: str, promise: str) -> None:
    faults = postgres_faults({**SAFE, setting: value})

    with pytest.raises(UnsafeStore, match=promise) as refusal:
        refuse_unless("agent 'transport-1' at db:5432/jobs", faults, accept_unsafe=False)

    text = str(refusal.value)
    assert f"{setting} is {value!r}" in text
    assert "on" in refusal.value.remedy
    assert "accept_unsafe" in text
    assert "transport-1" in text


@pytest.mark.parametrize(("setting", "value", "promise"), FORGETFUL)
def test_what_forgets_can_be_accepted_and_then_shows(setting: str, value: str, promise: str) -> None:
    [finding] = refuse_unless("store", postgres_faults({**SAFE, setting: value}), accept_unsafe=True)

    assert setting in finding
    assert promise in finding


@pytest.mark.parametrize(("setting", "value", "named"), UNUSABLE)
def test_what_cannot_work_is_refused_whatever_is_accepted(setting: str, value: str, named: str) -> None:
    faults = postgres_faults({**SAFE, setting: value})

    with pytest.raises(UnsafeStore) as refusal:
        refuse_unless("store", faults, accept_unsafe=True)

    assert named in refusal.value.setting
    assert "accept_unsafe" not in str(refusal.value)


def test_several_faults_are_all_told() -> None:
    faults = postgres_faults({**SAFE, "fsync": "off", "synchronous_commit": "off", "in_recovery": "on"})

    with pytest.raises(UnsafeStore, match="pg_is_in_recovery") as refusal:
        refuse_unless("store", faults, accept_unsafe=False)

    notes = "\n".join(refusal.value.__notes__)
    assert "fsync" in notes
    assert "synchronous_commit" in notes


def test_a_server_that_never_vacuums_is_worth_telling() -> None:
    [finding] = postgres_findings({**SAFE, "autovacuum": "off"})

    assert "autovacuum = on" in finding


def test_facts_say_what_the_server_is() -> None:
    facts = postgres_facts({**SAFE, "synchronous_standby_names": "ANY 1 (b, c)"})

    assert facts["server"].startswith("15.4")
    assert facts["synchronous standbys"] == "ANY 1 (b, c)"
