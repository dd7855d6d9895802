"""Transports by URL scheme: the core knows none by name, it finds them by entry point, group `jobmaster.agents`.

So a transport from another package is used like a built-in one: install it, and write its scheme into an agent's URL.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.model.errors import ConfigurationError, JobMasterError, quoted
from jobmaster.settings.frozen import FrozenTable
from jobmaster.settings.models import AgentSettings, ClusterSettings, StoreSettings

Settings = TypeVar("Settings", bound=StoreSettings)

GROUP = "jobmaster.agents"
ALIASES: Mapping[str, str] = {"postgres": "postgresql", "mariadb": "mysql", "sqlite3": "sqlite", "tls": "nats"}
"""Schemes that people write, and the one that the transport is registered under."""
EXTRAS: Mapping[str, str] = {"postgresql": "postgres", "mysql": "mysql", "nats": "nats"}
"""The extra of this package that brings a scheme's driver."""


def known_schemes() -> tuple[str, ...]:
    """The schemes that installed packages registered, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def make_transport(settings: AgentSettings, cluster: str, clock: Clock) -> AgentTransport:
    """The agent's transport, not opened, without any I/O. Raises `ConfigurationError` where no transport has that
    scheme, its driver is not installed, or the URL or an option is not right for it."""
    make = _load(settings)
    try:
        made = make(
            settings.url.get_secret_value(),
            cluster=cluster,
            name=settings.name,
            clock=clock,
            options=dict(settings.options),
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError([_driver_missing(settings, error)]) from error
    return made


def _load(settings: AgentSettings) -> Callable[..., AgentTransport]:
    scheme = ALIASES.get(settings.scheme, settings.scheme)
    # Several, where one distribution is installed and also on the path of a clone: the first one is the one imported.
    found: list[EntryPoint] = list(entry_points(group=GROUP, name=scheme))
    if not found:
        raise ConfigurationError([_scheme_unknown(settings, scheme)])
    try:
        loaded: Callable[..., AgentTransport] = found[0].load()
    except ModuleNotFoundError as error:
        raise ConfigurationError([_driver_missing(settings, error)]) from error
    except (ImportError, AttributeError) as error:
        fault = f"agent {settings.name!r}: the transport {found[0].value!r} for {scheme!r} cannot be loaded: {error}"
        raise ConfigurationError([fault]) from error
    return loaded


def _scheme_unknown(settings: AgentSettings, scheme: str) -> str:
    known = known_schemes()
    near = difflib.get_close_matches(scheme, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the installed ones are {', '.join(known) or 'none'}"
    return f"agent {settings.name!r}: no transport has the scheme {quoted(scheme)}; {hint}{_install(scheme)}"


def _driver_missing(settings: AgentSettings, error: ModuleNotFoundError) -> str:
    scheme = ALIASES.get(settings.scheme, settings.scheme)
    return f"agent {settings.name!r}: its driver {error.name!r} is not installed{_install(scheme)}"


def _install(scheme: str) -> str:
    extra = EXTRAS.get(scheme)
    return f"; install it from your clone with `pip install '.[{extra}]'`" if extra else ""


def store_faults(settings: ClusterSettings, clock: Clock | None = None) -> list[str]:
    """What is wrong with the URLs and options of master and agents, found without any I/O."""
    # Imported here, as it brings SQLAlchemy: a module that only declares handlers does not need it.
    from jobmaster.master import open_master

    clock = clock or SystemClock()
    faults: list[str] = []
    master = settings.master
    address = master.url.get_secret_value()
    attempts: list[Callable[[], object]] = [
        partial(open_master, address, cluster=settings.name, clock=clock, options=dict(master.options)),
        *(partial(make_transport, agent, settings.name, clock) for agent in settings.agents.values()),
    ]
    for attempt in attempts:
        try:
            attempt()
        except ConfigurationError as error:
            faults += error.faults
        except JobMasterError as error:
            faults.append(str(error))
    return faults


def accepting_unsafe(settings: ClusterSettings, clock: Clock | None = None) -> ClusterSettings:
    """The same settings with `accept_unsafe` among the options of every store that knows it; the others have nothing to
    accept. Without any I/O."""
    from jobmaster.master import open_master

    clock = clock or SystemClock()

    def master(store: StoreSettings) -> object:
        return open_master(
            store.url.get_secret_value(), cluster=settings.name, clock=clock, options=dict(store.options)
        )

    def agent(store: AgentSettings) -> object:
        return make_transport(store, settings.name, clock)

    agents = {name: _accepting(store, agent) for name, store in settings.agents.items()}
    return settings.model_copy(update={"master": _accepting(settings.master, master), "agents": FrozenTable(agents)})


def _accepting(store: Settings, make: Callable[[Settings], object]) -> Settings:
    wanted = store.model_copy(update={"options": FrozenTable({**store.options, "accept_unsafe": True})})
    try:
        make(wanted)
    except ConfigurationError:
        return store
    return wanted
