"""Settings: values, limits, and what never leaves them."""

import copy
import pickle
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from jobmaster.model.errors import ConfigurationError
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Jitter, Retry
from jobmaster.settings import ClusterSettings, Defaults, Timings, WorkerSettings, load_settings, settings_table
from jobmaster.settings.checks import redacted, scheme_of
from jobmaster.settings.units import bytes_of, seconds_of
from tests.badinputs import NAMES_ODD_BUT_ALLOWED, NAMES_TEXT


def faults(**given: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(given, environment=False)
    return caught.value.faults


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(15, 15), (0.5, 0.5), ("15", 15), ("15 s", 15), ("500ms", 0.5), ("10 min", 600), ("2h", 7200), ("30 D", 2592000)],
)
def test_durations_are_seconds_however_they_are_written(written: object, seconds: float) -> None:
    assert seconds_of(written) == seconds


def test_a_timedelta_is_a_duration() -> None:
    assert seconds_of(timedelta(minutes=1, milliseconds=500)) == 60.5


@pytest.mark.parametrize(
    "written", [True, None, "", "s", "-1", -1, "1 week", "1e3", float("nan"), float("inf"), 10**400, "9" * 50, "\u0661"]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        seconds_of(written)


@pytest.mark.parametrize(("written", "size"), [(10, 10), ("128 KiB", 131072), ("1MiB", 1 << 20), ("2 kb", 2000)])
def test_sizes_are_bytes_however_they_are_written(written: object, size: int) -> None:
    assert bytes_of(written) == size


@pytest.mark.parametrize("written", [True, 1.5, "many", None])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        bytes_of(written)


def test_nothing_configured_is_a_standalone_cluster_with_one_worker() -> None:
    settings = load_settings(environment=False)

    assert settings.master.url.get_secret_value() == "sqlite:///jobmaster.db"
    assert list(settings.agents) == ["standalone"]
    assert settings.agents["standalone"].url == settings.master.url
    assert [(worker.agent, worker.slots) for worker in settings.workers] == [("standalone", 10)]


def test_a_standalone_agent_lives_where_the_master_was_put_with_its_options() -> None:
    settings = load_settings({"master": {"url": "sqlite:///other.db", "options": {"wait": 3}}}, environment=False)

    assert settings.agents["standalone"].url.get_secret_value() == "sqlite:///other.db"
    assert settings.agents["standalone"].options == {"wait": 3}


def test_workers_attach_to_the_only_agent_and_take_the_default_slots() -> None:
    settings = load_settings(
        {"agents": {"one": {"url": "memory:"}}, "workers": [{}, {"slots": 3}], "defaults": {"slots": 7}},
        environment=False,
    )

    assert [(worker.agent, worker.slots) for worker in settings.workers] == [("one", 7), ("one", 3)]


def test_an_agent_without_a_worker_gives_a_cluster_without_workers() -> None:
    assert load_settings({"agents": {"one": {"url": "memory:"}}}, environment=False).workers == ()


def test_the_defaults_are_the_policy_that_jobs_have_anyway() -> None:
    assert Defaults().policy() == Policy()
    assert Defaults().policy().encode() == b"{}"


def test_a_retry_survives_the_way_through_the_settings() -> None:
    retry = Retry.exponential(2, factor=3, cap=60, jitter=Jitter.NONE, max_attempts=9, never_on=ValueError)

    assert Defaults.model_validate({"retry": retry}).policy().retry == retry


def test_retry_settings_that_contradict_each_other_are_a_fault() -> None:
    (fault,) = faults(defaults={"retry": {"kind": "fixed", "base": "2 h", "cap": "1 h"}})

    assert "defaults.retry" in fault
    assert "cap" in fault


def test_every_fault_is_found_in_one_go() -> None:
    found = faults(
        name="A b",
        timezone="Europe/Berln",
        master={"url": "no scheme"},
        agents={"X": {"url": "memory:"}, "two": {"urll": "memory:"}},
        workers=[{"slots": 0, "agent": "gone", "name": "w"}, {"agent": "two", "lanes": ["Mail"], "name": "w"}],
        timings={"lease_beat": 14, "pol": 1},
        limits={"data_bytes": "lots"},
        masster={},
    )

    for part in (
        "name: cluster 'A b' is not allowed",
        "'Europe/Berln' is no time zone",
        "master.url: no scheme",
        "agents.X.name: agent 'X' is not allowed",
        "agents.two.url: not given",
        "agents.two.urll: no such setting; did you mean 'url'?",
        "workers[0].slots=0",
        "workers[0].agent='gone' does not exist",
        "workers[1].lanes.Mail: lane 'Mail' is not allowed",
        "workers[1].name='w' is taken",
        "timings.pol: no such setting; did you mean 'poll'?",
        "limits.data_bytes='lots'",
        "masster: no such setting; did you mean 'master'?",
    ):
        assert any(part in fault for fault in found), (part, found)


def test_a_beat_that_would_lose_leases_is_a_fault_that_proposes_another() -> None:
    (fault,) = faults(timings={"lease_ttl": 9, "lease_beat": 7})

    assert "lease_beat=7 s must be less than lease_ttl - lease_margin = 6.5 s" in fault
    assert "3 s" in fault


def test_a_heartbeat_slower_than_death_is_a_fault() -> None:
    (fault,) = faults(timings={"worker_heartbeat": 20})

    assert "worker_dead_after=15 s" in fault


def test_a_worker_must_say_which_of_two_agents_it_serves() -> None:
    (fault,) = faults(agents={"one": {"url": "memory:"}, "two": {"url": "memory:"}}, workers=[{}])

    assert fault == "workers[0].agent: not given, and there are 2 agents: name one of one, two"


def test_agents_on_servers_need_a_master_that_is_named() -> None:
    (fault,) = faults(agents={"one": {"url": "postgresql://host/db"}})

    assert fault.startswith("master.url: not given, but agent 'one' is a postgresql server")


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "Europe", "", "UTC\n", "/etc/localtime", "A" * 500])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    (fault,) = faults(timezone=zone)

    assert "no time zone" in fault
    assert len(fault) < 300


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3"])
def test_time_zones_of_the_database_are_accepted(zone: str) -> None:
    assert load_settings({"timezone": zone}, environment=False).timezone == zone


def test_retention_may_be_forever() -> None:
    assert Timings.model_validate({"retention_days": "forever"}).retention_days is None
    assert Timings().retention_days == 30


@pytest.mark.parametrize(
    ("written", "lanes"),
    [
        ("mail", {"mail": None}),
        ("mail, files", {"mail": None, "files": None}),
        (["mail", "files"], {"mail": None, "files": None}),
        ({"mail": 3, "files": "shared"}, {"mail": 3, "files": None}),
    ],
)
def test_lanes_are_a_list_or_a_table(written: object, lanes: dict[str, int | None]) -> None:
    assert WorkerSettings.model_validate({"lanes": written}).lanes == lanes


@pytest.mark.parametrize("written", [[], {}, "", [3], {"mail": 0}, {"mail": True}, 3, None])
def test_what_names_no_lanes_is_a_fault(written: object) -> None:
    with pytest.raises(ValidationError):
        WorkerSettings.model_validate({"lanes": written})


@pytest.mark.parametrize("name", NAMES_TEXT.values(), ids=NAMES_TEXT)
def test_bad_names_are_refused_shortly_and_inert(name: str) -> None:
    (fault,) = faults(agents={name: {"url": "memory:"}})
    (lane,) = faults(workers=[{"lanes": [name]}])
    for text in (fault, lane):
        assert "is not allowed" in text
        assert text.isprintable()
        assert len(text) < 1_000


@pytest.mark.parametrize("name", NAMES_ODD_BUT_ALLOWED)
def test_odd_names_are_kept(name: str) -> None:
    assert list(load_settings({"agents": {name: {"url": "memory:"}}}, environment=False).agents) == [name]


def test_no_secret_is_in_a_representation_or_a_fault() -> None:
    secret = {"url": "postgresql://user:hunter2@host/db?token=hunter2", "options": {"password": "hunter2"}}
    settings = load_settings({"master": secret, "agents": {"one": secret}}, environment=False)
    (fault,) = faults(master=secret, agents={"one": {**secret, "hunter": 1}})

    assert "hunter2" not in repr(settings) + str(settings) + fault
    assert settings.master.shown_url == "postgresql://…@host/db"
    assert settings.master.scheme == "postgresql"


def test_a_url_of_the_wrong_kind_is_not_shown() -> None:
    found = faults(master={"url": "hunter2"}, agents={"one": {"url": ["hunter2"]}})

    assert len(found) == 2
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory:", "memory:"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
        ("nats://a:b@host:4222", "nats://…@host:4222"),
        ("nats://a,nats://b:hunter2@c,tls://d:4222", "nats://a,nats://…@c,tls://d:4222"),
        ("mysql://host/db?password=x", "mysql://host/db"),
        ("http://[", "http:…"),
    ],
)
def test_shown_urls_keep_scheme_host_and_path(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_the_scheme_of_a_url_is_without_its_driver() -> None:
    assert scheme_of("PostgreSQL+asyncpg://host") == "postgresql"
    assert scheme_of("jobs.db") == ""


def test_settings_are_frozen_through_and_through() -> None:
    settings = load_settings({"master": {"url": "memory:", "options": {"a": 1}}}, environment=False)

    with pytest.raises(ValidationError):
        settings.name = "other"
    with pytest.raises(TypeError):
        settings.agents["x"] = settings.agents["standalone"]  # type: ignore[index]  # that it is none is the point
    with pytest.raises(TypeError):
        settings.master.options["a"] = 2  # type: ignore[index]  # that it is none is the point


def test_settings_can_be_copied_and_pickled() -> None:
    settings = load_settings({"master": {"url": "memory:", "options": {"a": 1}}}, environment=False)

    assert copy.deepcopy(settings) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_the_table_lists_every_setting_with_its_variable_and_default() -> None:
    table = settings_table()

    assert "| `timings.lease_ttl` | `JOBMASTER_TIMINGS__LEASE_TTL` | 15 s |" in table
    assert "| `limits.data_bytes` | `JOBMASTER_LIMITS__DATA_BYTES` | 131,072 |" in table
    assert "| `agents.NAME.url` | `JOBMASTER_AGENTS__NAME__URL` | required |" in table
    assert "| `[[workers]].slots` |" in table
    for section in (Timings, Defaults):
        for name in section.model_fields:
            assert f".{name}" in table
    assert all(row.count(" | ") >= 3 for row in table.splitlines()[2:])
    assert all(not row.endswith("|  |") for row in table.splitlines()[2:]), "a setting without a meaning"


def test_settings_may_be_made_directly() -> None:
    settings = ClusterSettings.model_validate({"master": {"url": SecretStr("memory:")}})

    assert settings.master.url.get_secret_value() == "memory:"


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"workers": [{"slots": "many"}]}, "workers[0].slots='many': expected a whole number"),
        ({"workers": [{"slots": 1.5}]}, "workers[0].slots=1.5: expected a whole number"),
        ({"workers": [{"slots": 20_000}]}, "workers[0].slots=20000: expected at most 10000"),
        (
            {"workers": [{"mode": "fast"}]},
            "workers[0].mode='fast': expected 'full', 'execution', 'coordinator' or 'drain'",
        ),
        ({"workers": 3}, "workers=3: expected a list"),
        ({"timings": 3}, "timings=3: expected a table of settings"),
        ({"log": {"level": "loud"}}, "log.level='loud': expected 'debug', 'info', 'warning' or 'error'"),
        ({"name": 3}, "name=3: expected text"),
        ({"app": "app.py"}, "app: 'app.py' is no place in code; expected MODULE:NAME, such as \"shop.jobs:cluster\""),
        ({"defaults": {"retry": {"factor": "x"}}}, "defaults.retry.factor='x': expected a number"),
        ({"defaults": {"retry": {"factor": float("inf")}}}, "defaults.retry.factor=inf: expected a finite number"),
    ],
)
def test_a_fault_names_setting_value_and_what_was_expected(given: dict[str, Any], fault: str) -> None:
    assert faults(**given) == (fault,)


def test_a_url_in_the_wrong_place_is_not_shown() -> None:
    found = faults(master="postgresql://u:hunter2@host/db", agents={"one": "nats://hunter2@host"})

    assert found == ("master: expected a table of settings", "agents.one: expected a table of settings")


def test_the_case_of_a_log_level_does_not_matter() -> None:
    assert load_settings({"log": {"level": "WARNING"}}, environment=False).log.level == "warning"


def test_the_place_of_the_cluster_in_code_is_a_setting() -> None:
    assert load_settings({"app": "shop.jobs:cluster"}, environment=False).app == "shop.jobs:cluster"
