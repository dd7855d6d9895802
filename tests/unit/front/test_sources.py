"""The same settings from code, from a file and from the environment; and which of them wins."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from jobmaster.builder import ClusterBuilder
from jobmaster.model.errors import ConfigurationError
from jobmaster.model.retry import Jitter, Retry
from jobmaster.settings import ClusterSettings, load_settings
from jobmaster.settings.table import setting_rows

TOML = """
name = "production"
timezone = "Europe/Berlin"

[master]
url = "memory://main"

[agents.transport-1]
url = "memory:"

[[workers]]
name = "main"
agent = "transport-1"
slots = 50
lanes = {default = "shared", mail = 5}
prefetch = 20

[timings]
lease_ttl = "20 s"
retention_days = "forever"

[limits]
data_bytes = "64 KiB"

[defaults]
timeout = "1 min"
retry = {kind = "fixed", base = 2, jitter = "none", max_attempts = 7}

[log]
format = "json"
"""

ENVIRONMENT = {
    "JOBMASTER_NAME": "production",
    "JOBMASTER_TIMEZONE": "Europe/Berlin",
    "JOBMASTER_MASTER__URL": "memory://main",
    "JOBMASTER_AGENTS": '{"transport-1": {"url": "memory:"}}',
    "JOBMASTER_WORKERS__0__NAME": "main",
    "JOBMASTER_WORKERS__0__AGENT": "transport-1",
    "JOBMASTER_WORKERS__0__SLOTS": "50",
    "JOBMASTER_WORKERS__0__LANES": '{"default": "shared", "mail": 5}',
    "JOBMASTER_WORKERS__0__PREFETCH": "20",
    "JOBMASTER_TIMINGS__LEASE_TTL": "20 s",
    "JOBMASTER_TIMINGS__RETENTION_DAYS": "forever",
    "JOBMASTER_LIMITS__DATA_BYTES": "64 KiB",
    "JOBMASTER_DEFAULTS__TIMEOUT": "1 min",
    "JOBMASTER_DEFAULTS__RETRY": '{"kind": "fixed", "base": 2, "jitter": "none", "max_attempts": 7}',
    "JOBMASTER_LOG__FORMAT": "json",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for variable in [name for name in os.environ if name.startswith("JOBMASTER_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> "SetEnvironment":
    return SetEnvironment(monkeypatch)


class SetEnvironment:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._monkeypatch.setenv(name, value)


def chained() -> ClusterSettings:
    builder = (
        ClusterBuilder("production")
        .timezone("Europe/Berlin")
        .use_memory_for_master("memory://main")
        .lease(ttl=20)
        .retention("forever")
        .data_limit("64 KiB")
        .timeout("1 min")
        .retry(Retry(kind=Retry.fixed().kind, base_us=2_000_000, jitter=Jitter.NONE, max_attempts=7))
        .log(format="json")
    )
    builder.add_agent("transport-1").use_memory_for_agent()
    builder.add_worker("main").agent("transport-1").slots(50).lane("default").lane("mail", slots=5).prefetch(20)
    return builder.build().settings


def stated() -> ClusterSettings:
    builder = ClusterBuilder("production")
    worker = builder.add_worker("main")
    worker.lanes("default")
    worker.lane("mail", slots=5)
    worker.prefetch(20)
    worker.slots(50)
    worker.agent("transport-1")
    builder.log(format="json")
    builder.set("defaults.retry", {"kind": "fixed", "base": 2, "jitter": "none", "max_attempts": 7})
    builder.timeout(60)
    builder.data_limit(64 * 1024)
    builder.retention("forever")
    builder.lease(ttl=20)
    agent = builder.add_agent("transport-1")
    agent.use_agent("memory:")
    builder.use_master("memory://main")
    builder.timezone("Europe/Berlin")
    return builder.build().settings


def test_code_file_and_environment_end_in_the_same_settings(setenv: SetEnvironment) -> None:
    Path("jobmaster.toml").write_text(TOML)
    from_file = ClusterBuilder.from_toml("jobmaster.toml").build().settings
    in_a_chain, in_statements = chained(), stated()
    setenv(ENVIRONMENT)
    from_environment = ClusterBuilder().build().settings

    assert from_file == from_environment == in_a_chain == in_statements
    assert from_file != load_settings(environment=False)
    assert from_file.workers[0].lanes == {"default": None, "mail": 5}
    assert from_file.timings.retention_days is None


def test_a_call_wins_over_the_environment_which_wins_over_the_file(setenv: SetEnvironment) -> None:
    Path("jobmaster.toml").write_text(TOML)
    setenv({"JOBMASTER_TIMINGS__LEASE_TTL": "30 s", "JOBMASTER_TIMINGS__POLL": "2", "JOBMASTER_NAME": "staging"})

    settings = ClusterBuilder.from_toml("jobmaster.toml").poll("3 s").build().settings

    assert settings.timings.poll == 3
    assert settings.timings.lease_ttl == 30
    assert settings.name == "staging"
    assert settings.timezone == "Europe/Berlin"
    assert settings.timings.lease_beat == 5


def test_the_file_may_be_named_by_the_environment(setenv: SetEnvironment) -> None:
    Path("elsewhere.toml").write_text('name = "elsewhere"')
    setenv({"JOBMASTER_CONFIG": "elsewhere.toml"})

    assert ClusterBuilder().use_memory_for_master().build().name == "elsewhere"
    assert ClusterBuilder().use_memory_for_master().ignore_environment().build().name == "jobmaster"


def test_one_field_of_a_listed_worker_can_be_set_by_the_environment(setenv: SetEnvironment) -> None:
    Path("jobmaster.toml").write_text(TOML)
    setenv({"JOBMASTER_WORKERS__0__SLOTS": "7", "JOBMASTER_WORKERS__1__SLOTS": "8"})

    listed = ClusterBuilder.from_toml("jobmaster.toml").build().settings.workers
    builder = ClusterBuilder().use_memory_for_master()
    builder.add_worker("code").prefetch(1)
    coded = builder.build().settings.workers

    assert [(worker.name, worker.slots) for worker in listed] == [("main", 7), (None, 8)]
    assert [(worker.name, worker.slots, worker.prefetch) for worker in coded] == [("code", 7, 1)]


def test_an_agent_with_a_dash_is_reached_by_an_underscore(setenv: SetEnvironment) -> None:
    Path("jobmaster.toml").write_text(TOML)
    setenv({"JOBMASTER_AGENTS__TRANSPORT_1__URL": "memory://other"})

    agents = ClusterBuilder.from_toml("jobmaster.toml").build().settings.agents

    assert {name: agent.url.get_secret_value() for name, agent in agents.items()} == {"transport-1": "memory://other"}


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("JOBMASTER_MASTER_URL", "JOBMASTER_MASTER__URL"),
        ("JOBMASTER_TIMNGS__LEASE_TTL", "JOBMASTER_TIMINGS__LEASE_TTL"),
        ("JOBMASTER_TIMINGS_LEASE_TTL", "JOBMASTER_TIMINGS__LEASE_TTL"),
    ],
)
def test_a_mistyped_variable_is_a_fault_that_names_the_right_one(
    setenv: SetEnvironment, variable: str, meant: str
) -> None:
    setenv({variable: "secret"})

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert caught.value.faults == (f"'{variable}' in the environment is no setting; did you mean {meant}?",)


def test_an_unknown_key_in_a_variable_is_a_fault(setenv: SetEnvironment) -> None:
    setenv({"JOBMASTER_TIMINGS__LEASE_TL": "3"})

    with pytest.raises(ConfigurationError, match=r"timings\.lease_tl: no such setting; did you mean 'lease_ttl'"):
        load_settings()


def test_variables_that_others_made_are_left_alone(setenv: SetEnvironment) -> None:
    setenv(
        {
            "JOBMASTER_SERVICE_HOST": "10.0.0.1",
            "JOBMASTER_SERVICE_PORT_HTTP": "80",
            "JOBMASTER_PORT": "tcp://10.0.0.1:80",
            "JOBMASTER_PORT_80_TCP_ADDR": "10.0.0.1",
            "JOBMASTER_TEST_POSTGRES_URL": "postgresql://x",
            "JOBMASTER_FAILPOINTS": "",
            "JOBMASTER_FAILPOINT_LOG": "x",
        }
    )

    assert load_settings() == load_settings(environment=False)


def test_a_variable_that_is_no_json_is_a_fault_that_names_it(setenv: SetEnvironment) -> None:
    setenv({"JOBMASTER_AGENTS": "transport-1"})

    with pytest.raises(ConfigurationError, match=r"agents.*written as JSON"):
        load_settings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = ", "not valid TOML"),
        (b"name = '\xff'", "not UTF-8"),
        (b"nam = 'x'", "nam: no such setting; did you mean 'name'"),
        (b"[[agents]]\nurl = 'memory:'", "agents"),
        (b"workers = 3", "workers=3: expected a list"),
        (b"timings = 3", "timings=3"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_fault(content: bytes, message: str) -> None:
    Path("jobmaster.toml").write_bytes(content)

    with pytest.raises(ConfigurationError, match=message):
        ClusterBuilder.from_toml("jobmaster.toml").build()


def test_a_missing_file_is_named_with_what_writes_one() -> None:
    with pytest.raises(ConfigurationError, match=r"gone.toml: no such file; write it with `jobmaster init`"):
        ClusterBuilder.from_toml("gone.toml").build()
    with pytest.raises(ConfigurationError, match=r"\.: cannot be read"):
        ClusterBuilder.from_toml(".").build()


def test_every_setting_can_be_set_in_code_by_its_key() -> None:
    builder = ClusterBuilder().ignore_environment().use_memory_for_master()
    defaults = builder.build().settings

    for row in setting_rows():
        if row.key.startswith(("agents.", "[[workers]]", "master.")):
            continue
        value: object = defaults
        for part in row.key.split("."):
            value = getattr(value, part)
        other = ClusterBuilder().ignore_environment().use_memory_for_master().set(row.key, value).build()
        assert other.settings == defaults, row.key


def test_a_list_and_a_field_of_it_may_both_be_in_the_environment(setenv: SetEnvironment) -> None:
    setenv({"JOBMASTER_WORKERS": '[{"name": "one"}, {"name": "two"}]', "JOBMASTER_WORKERS__1__SLOTS": "3"})

    assert [(worker.name, worker.slots) for worker in load_settings().workers] == [("one", 10), ("two", 3)]


def test_a_url_where_a_table_belongs_is_not_shown(setenv: SetEnvironment) -> None:
    setenv({"JOBMASTER_MASTER": "postgresql://user:hunter2@host/db"})

    with pytest.raises(ConfigurationError, match="master") as caught:
        load_settings()

    assert "hunter2" not in str(caught.value)
