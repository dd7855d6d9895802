"""From a URL to a master store."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.tls import tls_context
from jobmaster.model.errors import ConfigurationError

if TYPE_CHECKING:
    from jobmaster.master.sql.master import SqlMaster

SCHEMES = ("sqlite", "postgresql", "mysql", "mariadb", "memory")

_USER = re.compile(r"(?<=://)[^/]*@")
_SECRET = re.compile(r"((?:password|passwd|secret|token)=)[^&]*", re.IGNORECASE)


def open_master(url: str, *, cluster: str, clock: Clock, options: Mapping[str, Any] | None = None) -> MasterStore:
    """The store that the URL's scheme stands for, not opened yet and without any I/O. Raises `ConfigurationError` for
    a scheme or an option that does not exist."""
    scheme = url.partition(":")[0].lower()
    given = dict(options or {})
    if scheme == "memory":
        # Imported here: a process loads the store it uses and no other.
        from jobmaster.master.memory import MemoryMaster

        _refuse_unknown(given, (), url)
        return MemoryMaster(clock, url=url, cluster=cluster)
    if scheme == "sqlite":
        from jobmaster.master.sql.master import SqlMaster
        from jobmaster.master.sql.sqlite_engine import SqliteEngine

        _refuse_unknown(given, ("migrate",), url)
        return SqlMaster(SqliteEngine(url, clock), cluster, migrate=_flag(given, "migrate", True, url))
    if scheme.partition("+")[0] in ("postgresql", "mysql", "mariadb"):
        from jobmaster.master.sql.master import SqlMaster
        from jobmaster.master.sql.server_engine import ServerEngine

        mysql = not scheme.startswith("postgresql")
        _refuse_unknown(given, ("migrate", "accept_unsafe", *(("tls",) if mysql else ())), url)
        tls = tls_context(given.get("tls"), f"master URL {masked(url)!r}")
        engine = ServerEngine(url, accept_unsafe=_flag(given, "accept_unsafe", False, url), tls=tls)
        return SqlMaster(engine, cluster, migrate=_flag(given, "migrate", True, url))
    raise ConfigurationError(
        [f"master URL {masked(url)!r}: no master store has the scheme {scheme!r}; use one of {', '.join(SCHEMES)}"]
    )


def movable_master(url: str, cluster: str, clock: Clock, *, filling: bool = False) -> "SqlMaster":
    """The master at that URL, for who moves it to another database, or from one: with `filling` as the one to be
    filled, which is made if it is not there. Raises `ConfigurationError`."""
    master = open_master(url, cluster=cluster, clock=clock)
    if url.partition(":")[0].lower() == "memory":
        raise ConfigurationError([f"master URL {masked(url)!r}: a master in memory can't be moved; it is kept nowhere"])
    found = cast("SqlMaster", master)
    found.filling = filling
    return found


def masked(url: str) -> str:
    """The URL as it may stand in a message: without user and password, which a stray `@` would make hard to tell
    apart, and without secret parameters."""
    return _SECRET.sub(r"\1***", _USER.sub("***@", url))


def _refuse_unknown(options: Mapping[str, Any], known: tuple[str, ...], url: str) -> None:
    faults = [
        f"master URL {masked(url)!r}: option {name!r} does not exist; "
        + (f"use one of {', '.join(known)}" if known else "this store has none")
        for name in options
        if name not in known
    ]
    if faults:
        raise ConfigurationError(faults)


def _flag(options: Mapping[str, Any], name: str, default: bool, url: str) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise ConfigurationError([f"master URL {masked(url)!r}: option {name}={value!r}; expected true or false"])
    return value
