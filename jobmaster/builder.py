"""`ClusterBuilder`: says in code what a cluster is. Nothing is checked, opened or registered before `build()`, which
reports every fault at once.

A builder also reads the environment (`JOBMASTER_…`) and the TOML file that `from_toml` or `JOBMASTER_CONFIG` names;
what was said in code wins over both.
"""

import os
import types
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, Self

from jobmaster.builder_sections import AgentSection, WorkerSection, store_tree
from jobmaster.cluster import Cluster
from jobmaster.contracts.scheduling import Schedule
from jobmaster.declaring import Declaring
from jobmaster.handler import JobHandler
from jobmaster.invocation import HandlerFactory
from jobmaster.listeners import Callback, EventKind, callbacks_of
from jobmaster.model.errors import ConfigurationError, DefinitionInvalid, quoted
from jobmaster.model.retry import Retry
from jobmaster.profiles import StaticProfile
from jobmaster.registry import Registry, build_registry
from jobmaster.settings.models import ClusterSettings, Defaults
from jobmaster.settings.sources import gather_settings
from jobmaster.transports import store_faults

Duration = timedelta | float | str
"""A timedelta, seconds, or text such as "10 min"."""


class ClusterBuilder:
    """Collects a configuration. Its methods return it, those of `add_agent` and `add_worker` the part they add."""

    def __init__(self, name: str | None = None) -> None:
        self._tree: dict[str, Any] = {} if name is None else {"name": name}
        self._toml: str | os.PathLike[str] | None = None
        self._environment = True
        self._handlers: list[object] = []
        self._profiles: list[object] = []
        self._factory: HandlerFactory | None = None
        self._callbacks: dict[EventKind, list[Callback]] = {}
        self._faults: list[str] = []
        self._built = False
        self._is_default = False

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """A builder over a TOML file: what is said on it wins over the file."""
        builder = cls()
        builder._toml = path
        return builder

    def ignore_environment(self) -> Self:
        """Read no environment variable: for tests, and programs that are configured otherwise."""
        self._note()
        self._environment = False
        return self

    def default(self) -> Self:
        """This cluster is meant where a program that opens several names none: see `Scheduler.default`."""
        self._note()
        self._is_default = True
        return self

    def add_handlers(self, *handlers: type[JobHandler[Any]] | Callable[..., Any] | types.ModuleType) -> Self:
        """Handler classes, functions, methods, or modules; of a module, the handlers that are defined in it."""
        self._note()
        self._handlers += handlers
        return self

    def add_profiles(self, *profiles: type[StaticProfile]) -> Self:
        """Profiles whose schedules are brought into line with the code at each start."""
        self._note()
        self._profiles += profiles
        return self

    def handler_factory(self, factory: HandlerFactory) -> Self:
        """Builds the instance for each attempt: `factory(handler_class)` gives it, or a context manager of it that is
        entered before the run and closed after it, also on a timeout. Sync or async."""
        self._note()
        self._factory = factory
        return self

    def add_listener(self, listener: object) -> Self:
        """An object with some of the methods `on_enqueued`, `on_started`, `on_succeeded`, `on_failed`, `on_retry`,
        `on_cancelled`, `on_late_result`, `on_saturated`, `on_unroutable`, `on_quarantined`; each takes
        a `JobEvent`."""
        try:
            found = callbacks_of(listener)
        except DefinitionInvalid as error:
            self._note(str(error))
        else:
            for kind, callback in found.items():
                self._on(kind, callback)
        return self

    def on_enqueued(self, callback: Callback) -> Self:
        return self._on(EventKind.ENQUEUED, callback)

    def on_started(self, callback: Callback) -> Self:
        return self._on(EventKind.STARTED, callback)

    def on_succeeded(self, callback: Callback) -> Self:
        return self._on(EventKind.SUCCEEDED, callback)

    def on_failed(self, callback: Callback) -> Self:
        """When a job ended `failed`, for whatever reason."""
        return self._on(EventKind.FAILED, callback)

    def on_retry(self, callback: Callback) -> Self:
        """When an attempt failed and another one follows."""
        return self._on(EventKind.RETRY, callback)

    def on_cancelled(self, callback: Callback) -> Self:
        return self._on(EventKind.CANCELLED, callback)

    def on_late_result(self, callback: Callback) -> Self:
        """When a run ended after its lease, so that its outcome was refused: with what it came to."""
        return self._on(EventKind.LATE_RESULT, callback)

    def on_saturated(self, callback: Callback) -> Self:
        """When a worker's slots were all taken while more jobs waited: once, with how long it lasted."""
        return self._on(EventKind.SATURATED, callback)

    def on_unroutable(self, callback: Callback) -> Self:
        """When jobs wait whose handler no live worker knows."""
        return self._on(EventKind.UNROUTABLE, callback)

    def on_quarantined(self, callback: Callback) -> Self:
        """When the store of an agent turned out not to be what it was, so that nothing happens there before it is
        reconciled."""
        return self._on(EventKind.QUARANTINED, callback)

    def use_master(self, url: str, **options: Any) -> Self:
        """The master store that the URL's scheme stands for."""
        return self._use(url, options)

    def use_sqlite_for_master(self, url: str | os.PathLike[str], **options: Any) -> Self:
        """A file: its path, or a `sqlite:///` URL."""
        return self._use(url, options, "sqlite")

    def use_memory_for_master(self, url: str = "memory:", **options: Any) -> Self:
        """This process's memory: for tests, as nothing outlives the process."""
        return self._use(url, options, "memory")

    def use_postgres_for_master(self, url: str, **options: Any) -> Self:
        return self._use(url, options, "postgres")

    def use_mysql_for_master(self, url: str, **options: Any) -> Self:
        return self._use(url, options, "mysql")

    def add_agent(self, name: str) -> AgentSection:
        """A named transport. The name stays: the jobs in flight belong to it."""
        self._note()
        agents = self._tree.setdefault("agents", {})
        if name in agents:
            self._note(f"agents.{quoted(name)}: added twice; agent names are unique")
        return AgentSection(self._note, name, agents.setdefault(name, {}))

    def add_worker(self, name: str | None = None) -> WorkerSection:
        """A worker of every process that runs this cluster."""
        self._note()
        worker: dict[str, Any] = {} if name is None else {"name": name}
        self._tree.setdefault("workers", []).append(worker)
        return WorkerSection(self._note, worker)

    def set(self, key: str, value: Any) -> Self:
        """Any setting by its TOML key, such as `"timings.audit_lag"`: those below are the ones that are set often."""
        self._note()
        *tables, last = key.split(".")
        tree: Any = self._tree
        for table in tables:
            tree = tree.setdefault(table, {}) if isinstance(tree, dict) else None
        if isinstance(tree, dict):
            # Copied, so that setting a part of it later changes nothing of the caller's.
            tree[last] = dict(value) if isinstance(value, Mapping) else value
        else:
            self._note(f"{quoted(key)}: no such setting")
        return self

    def timeout(self, timeout: Duration, grace: Duration | None = None) -> Self:
        """How long a run may take, where its handler does not say; and how long it may take to end once cancelled."""
        return self._set("defaults", timeout=timeout, grace=grace)

    def retry(self, retry: Retry) -> Self:
        """How failed attempts are repeated, where the handler does not say."""
        return self._set("defaults", retry=retry)

    def transient_threshold(self, threshold: Duration) -> Self:
        """Jobs due later than this are held on the master until then."""
        return self._set("timings", transient_threshold=threshold)

    def retention(
        self,
        days: float | Literal["forever"] | None = None,
        *,
        succeeded: float | Literal["forever"] | None = None,
        failed: float | Literal["forever"] | None = None,
        cancelled: float | Literal["forever"] | None = None,
        handler: str | None = None,
    ) -> Self:
        """How many days ended jobs are kept: all, or by the state they ended in, or those of one handler, by its name.
        What is not said of a handler is as for the others."""
        table = {"succeeded": succeeded, "failed": failed, "cancelled": cancelled}
        if handler is None:
            self._set("timings", retention_days=days)
            return self._set("retention", **table)
        own = {state: days if kept is None else kept for state, kept in table.items()}
        handlers = self._tree.get("retention", {}).get("handlers", {})
        given = {state: kept for state, kept in own.items() if kept is not None}
        return self._set("retention", handlers={**handlers, handler: {**handlers.get(handler, {}), **given}})

    def data_limit(self, size: int | str) -> Self:
        """The largest data a job may have: bytes, or text such as "1 MiB"."""
        return self._set("limits", data_bytes=size)

    def result_limit(self, size: int | str) -> Self:
        """The largest result a job may have."""
        return self._set("limits", result_bytes=size)

    def lease(self, ttl: Duration | None = None, beat: Duration | None = None, margin: Duration | None = None) -> Self:
        """How long a lease lasts, how often it is extended, and how long before its end it is no longer trusted."""
        return self._set("timings", lease_ttl=ttl, lease_beat=beat, lease_margin=margin)

    def heartbeat(self, every: Duration | None = None, dead_after: Duration | None = None) -> Self:
        """How often a worker says that it lives, and the silence after which it counts as dead."""
        return self._set("timings", worker_heartbeat=every, worker_dead_after=dead_after)

    def poll(self, every: Duration) -> Self:
        """How often an idle worker looks for jobs where nothing wakes it."""
        return self._set("timings", poll=every)

    def shutdown(self, timeout: Duration) -> Self:
        """How long running jobs may go on once a stop was asked for."""
        return self._set("timings", shutdown=timeout)

    def timezone(self, name: str) -> Self:
        """The IANA time zone of schedules that name none."""
        return self.set("timezone", name)

    def log(
        self,
        format: Literal["auto", "console", "json"] | None = None,  # noqa: A002 - the setting's name
        level: Literal["debug", "info", "warning", "error"] | None = None,
    ) -> Self:
        """What `jobmaster` commands write about themselves, and how."""
        return self._set("log", format=format, level=level)

    def build(self) -> Cluster:
        """The cluster, frozen; the builder takes no more calls. Raises `ConfigurationError` with every fault of the
        settings, the handlers, the listeners and the stores' URLs, and changes nothing then. Connects to nothing."""
        self._note()
        settings, faults = gather_settings(self._tree, toml=self._toml, environment=self._environment)
        faults = [*self._faults, *faults]
        registry, found = build_registry(self._handlers, settings.defaults if settings else Defaults(), self._factory)
        faults += found
        declared: Mapping[str, tuple[Schedule, ...]] = {}
        if settings is not None:
            faults += store_faults(settings) + _agents_of_handlers(registry, settings)
            declaring = Declaring(settings, registry)
            declared = declaring.all(self._profiles)
            faults += declaring.faults
        if settings is None or faults:
            raise ConfigurationError(list(dict.fromkeys(faults)))
        self._built = True
        callbacks = {kind: tuple(found) for kind, found in self._callbacks.items()}
        return Cluster(settings, registry, callbacks, declared, is_default=self._is_default)

    def _on(self, kind: EventKind, callback: Callback) -> Self:
        self._note(*([] if callable(callback) else [f"on_{kind}: {quoted(callback)} is not callable"]))
        self._callbacks.setdefault(kind, []).append(callback)
        return self

    def _use(self, url: str | os.PathLike[str], options: dict[str, Any], kind: str | None = None) -> Self:
        tree, faults = store_tree(url, options, kind)
        self._note(*(f"master.url: {fault}" for fault in faults))
        self._tree["master"] = tree
        return self

    def _set(self, table: str, **values: Any) -> Self:
        self._note()
        self._tree.setdefault(table, {}).update({key: value for key, value in values.items() if value is not None})
        return self

    def _note(self, *faults: str) -> None:
        """Every call passes here: it keeps what is wrong for `build()`, and refuses what comes after that."""
        if self._built:
            name = self._tree.get("name", "the cluster")
            raise ConfigurationError([f"{quoted(name)} was built already: configure it before build()"])
        self._faults += faults


def _agents_of_handlers(registry: Registry, settings: ClusterSettings) -> list[str]:
    known = ", ".join(sorted(settings.agents))
    return [
        f"{handler.label}: agent={quoted(handler.agent)} does not exist; the agents are: {known}"
        for handler in registry
        if handler.agent is not None and handler.agent not in settings.agents
    ]
