"""The builder: what it collects, what it refuses, and that the cluster it gives is frozen."""

from typing import Any

import pytest

from jobmaster import Cluster, ClusterBuilder, ConfigurationError, JobContext, JobEvent, JobHandler
from jobmaster.listeners import EventKind
from tests.unit.front import shop
from tests.unit.front.shop import CountLines, SendWelcome


def builder(name: str | None = "shop") -> ClusterBuilder:
    return ClusterBuilder(name).ignore_environment().use_memory_for_master()


def faults(configured: ClusterBuilder) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        configured.build()
    return caught.value.faults


def test_every_cluster_method_returns_the_builder_and_every_section_method_the_section() -> None:
    config = builder()
    agent, worker = config.add_agent("one"), config.add_worker("w")

    assert config.timeout(1).retention(3).add_handlers(SendWelcome).lease(beat=4).log(level="debug") is config
    assert config.on_failed(print).add_listener(Watch()).handler_factory(lambda cls: cls()).poll(2) is config
    assert agent.use_memory_for_agent() is agent
    assert worker.agent("one").slots(3).lanes("a").lane("b", 2).prefetch(1).mode("execution") is worker

    settings = config.build().settings
    assert settings.workers[0].lanes == {"a": None, "b": 2}
    assert settings.workers[0].mode == "execution"


def test_options_of_a_store_are_passed_on() -> None:
    config = builder()
    config.add_agent("one").use_agent("memory:", colour="blue")

    (fault,) = faults(config)

    assert "colour" in fault


@pytest.mark.parametrize(
    "late",
    [
        lambda config, agent, worker: config.timeout(3),
        lambda config, agent, worker: config.add_handlers(SendWelcome),
        lambda config, agent, worker: config.add_agent("two"),
        lambda config, agent, worker: config.add_worker(),
        lambda config, agent, worker: config.use_master("memory:"),
        lambda config, agent, worker: config.on_failed(print),
        lambda config, agent, worker: config.set("timings.poll", 3),
        lambda config, agent, worker: config.build(),
        lambda config, agent, worker: agent.use_memory_for_agent(),
        lambda config, agent, worker: worker.slots(3),
    ],
)
def test_after_build_every_call_is_refused(late: Any) -> None:
    config = builder()
    agent, worker = config.add_agent("one").use_memory_for_agent(), config.add_worker()
    cluster = config.build()
    before = cluster.settings

    with pytest.raises(ConfigurationError, match="'shop' was built already"):
        late(config, agent, worker)
    assert cluster.settings == before


def test_a_failed_build_can_be_corrected() -> None:
    config = builder().poll("soon")
    assert len(faults(config)) == 1

    assert config.poll(2).build().settings.timings.poll == 2


def test_faults_of_every_kind_are_found_at_once() -> None:
    config = builder("My Shop").add_handlers(JobHandler, 42, shop.SendWelcome).add_listener(object())  # type: ignore[arg-type]  # mistakes under test
    config.on_failed("not callable")  # type: ignore[arg-type]  # the mistake under test
    config.add_agent("one").use_postgres_for_agent("mysql://u:hunter2@host/db")
    config.add_agent("one")
    config.add_worker("w").agent("other").slots(0)

    found = faults(config)

    for part in (
        "listener object: it has no method to call",
        "on_failed: 'not callable' is not callable",
        "agents.one.url: 'mysql://…@host/db' is no postgres URL",
        "agents.'one': added twice",
        "did you mean 'my-shop'?",
        "workers[0].slots=0",
        "workers[0].agent='other' does not exist",
        "JobHandler: it has no `execute`",
        "42: it is no handler",
    ):
        assert any(part in fault for fault in found), (part, found)
    assert "hunter2" not in str(found)


def test_a_scheme_that_nobody_registered_is_named_with_those_that_are() -> None:
    config = builder()
    config.add_agent("one").use_agent("rabbit://host")

    (fault,) = faults(config)

    assert "agent 'one': no transport has the scheme 'rabbit'" in fault
    assert "memory, mysql" in fault
    assert "postgresql, sqlite" in fault


def test_a_scheme_whose_extra_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmaster.transports.entry_points", lambda **_: ())
    config = builder()
    config.add_agent("one").use_nats_for_agent("nats://host:4222")

    (fault,) = faults(config)

    assert "pip install '.[nats]'" in fault


def test_the_servers_of_one_nats_cluster_are_one_agents_address() -> None:
    config = builder()
    config.add_agent("one").use_nats_for_agent(["nats://u:hunter2@a:4222", "http://b:4222"])

    (fault, *_) = faults(config)

    # Told apart by whoever connects; a scheme that is none of its own is refused there.
    assert "hunter2" not in fault


def test_a_master_that_no_store_is_for_is_a_fault() -> None:
    config = ClusterBuilder("shop").ignore_environment().use_master("oracle://u:hunter2@host")
    config.add_agent("one").use_memory_for_agent()

    (fault,) = faults(config)

    assert "oracle" in fault
    assert "hunter2" not in fault


def test_a_handler_bound_to_an_agent_that_does_not_exist_is_a_fault() -> None:
    class Bound(SendWelcome):
        agent = "gone"

    (fault,) = faults(builder().add_handlers(Bound))

    assert fault == "Bound: agent='gone' does not exist; the agents are: standalone"


def test_two_clusters_in_one_process_share_nothing() -> None:
    first = builder("one").add_handlers(SendWelcome).on_failed(print).build()
    second = builder("two").add_handlers(CountLines).build()

    assert (first.name, second.name) == ("one", "two")
    assert first.registry.names == {"send-welcome"}
    assert second.registry.names == {"count-lines"}
    assert first.listeners().wants(EventKind.FAILED)
    assert not second.listeners().wants(EventKind.FAILED)


def test_a_cluster_is_frozen() -> None:
    cluster = builder().build()

    with pytest.raises(AttributeError):
        cluster.settings = cluster.settings  # type: ignore[misc]  # that it cannot be set is the point
    with pytest.raises(AttributeError):
        cluster.extra = 1  # type: ignore[attr-defined]  # that there is no place for it is the point


def test_defining_handlers_registers_nothing() -> None:
    class Unheard(JobHandler):
        async def execute(self, job: JobContext) -> None: ...

    assert builder().build().registry.names == frozenset()
    assert repr(Unheard)


def test_the_representation_shows_no_url() -> None:
    config = ClusterBuilder("shop").ignore_environment().use_master("memory://hunter2")

    assert "hunter2" not in repr(config.build())
    assert isinstance(config, ClusterBuilder)
    assert "hunter2" not in repr(config)


class Watch:
    def on_failed(self, event: JobEvent) -> None: ...


@pytest.mark.asyncio
async def test_a_cluster_runs_and_connects_on_memory() -> None:
    heard: list[JobEvent] = []
    config = ClusterBuilder("runs").ignore_environment().use_memory_for_master("memory://named-to-be-shared")
    config.add_worker().lanes("mail")
    cluster: Cluster = config.add_handlers(SendWelcome).on_succeeded(heard.append).build()

    async with cluster.run() as runtime:
        handle = await runtime.scheduler.once_now(SendWelcome, shop.Welcome("you"))
        assert await handle.result(timeout=20) == "welcome, you"
        async with cluster.connect() as scheduler:
            assert (await scheduler.get(handle.id)).id == handle.id

    assert [event.job_id for event in heard] == [handle.id]


def test_setting_below_something_that_is_no_table_is_a_fault() -> None:
    assert faults(builder().set("name.first", 3)) == ("'name.first': no such setting",)


def test_setting_a_part_changes_nothing_of_what_was_given() -> None:
    retry = {"kind": "fixed"}

    settings = builder().set("defaults.retry", retry).set("defaults.retry.max_attempts", 9).build().settings

    assert (settings.defaults.retry.kind, settings.defaults.retry.max_attempts) == ("fixed", 9)
    assert retry == {"kind": "fixed"}


def test_a_lane_that_no_worker_serves_is_doubtful() -> None:
    config = builder().add_handlers(SendWelcome, CountLines)

    (warning,) = config.build().warnings

    assert "SendWelcome uses lane 'mail'" in warning
    assert ".lanes('default', 'mail')" in warning


def test_without_workers_every_lane_is_somebody_elses() -> None:
    config = builder().add_handlers(SendWelcome)
    config.add_agent("one").use_memory_for_agent()

    assert config.build().warnings == ()


def test_a_process_without_workers_knows_which_agents_serve_a_lane() -> None:
    config = builder().add_handlers(SendWelcome)
    for name in ("one", "two"):
        config.add_agent(name).use_memory_for_agent()
    config.add_worker("w1").agent("one").lanes("default")
    config.add_worker("w2").agent("two").lanes("default", "mails")

    cluster = config.build()

    assert cluster.by_lane == {"default": ("one", "two"), "mails": ("two",)}
    assert cluster.without_workers().accepting_unsafe().by_lane == cluster.by_lane


def test_a_master_that_forgets_what_its_agents_keep_is_doubtful() -> None:
    config = builder()
    config.add_agent("one").use_sqlite_for_agent("jobs.db")

    (warning,) = config.build().warnings

    assert "the master is in memory" in warning
    assert "'one'" in warning


def test_retention_is_set_for_all_by_state_and_by_handler() -> None:
    config = ClusterBuilder("shop").ignore_environment().retention(20, failed="forever")
    config.retention(handler="send-welcome", succeeded=0.5).retention(3, handler="audit.log", failed=90)
    kept = config.build().settings
    assert (kept.timings.retention_days, kept.retention.failed, kept.retention.succeeded) == (20, "forever", None)
    assert kept.retention.handlers["send-welcome"].succeeded == 0.5
    audit = kept.retention.handlers["audit.log"]
    assert (audit.succeeded, audit.failed, audit.cancelled) == (3, 90, 3)
    with pytest.raises(ConfigurationError, match=r"(?s)retention\.succeeded.*retention\.handlers"):
        ClusterBuilder("shop").ignore_environment().retention(succeeded=-1).retention(1, handler="Bad Name").build()
