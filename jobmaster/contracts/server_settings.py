"""What a database server must be set to so that the promises hold on it: pure, shared by the agent and the master.

A store asks its server `POSTGRES_QUESTION`, gives the answer to `postgres_faults`, and lets `refuse_unless` decide.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from jobmaster.model.errors import UnsafeStore

OLDEST_POSTGRES = 13
"""The oldest major version that is worked with. Tested: 15 and 18."""

POSTGRES_SETTINGS = (
    *("server_version", "server_version_num", "server_encoding", "fsync", "full_page_writes", "synchronous_commit"),
    *("synchronous_standby_names", "data_checksums", "autovacuum"),
    *("default_transaction_isolation", "default_transaction_read_only"),
)

_NAMES = ", ".join(f"'{name}'" for name in POSTGRES_SETTINGS)
POSTGRES_QUESTION = (
    f"SELECT name, setting FROM pg_settings WHERE name IN ({_NAMES}) "  # noqa: S608 - the names above
    "UNION ALL SELECT 'in_recovery', CASE WHEN pg_is_in_recovery() THEN 'on' ELSE 'off' END"
)
"""SQL that gives (name, value) rows, all text. What a session has set counts, so ask on a connection like those that
do the work."""


class SettingFault(Struct, frozen=True):
    """One setting under which a promise does not hold."""

    setting: str
    found: str
    remedy: str
    promise: str
    """What happens otherwise."""
    acceptable: bool = False
    """Whether `accept_unsafe` may pass over it: what works, but promises less. The others could not work at all."""

    def error(self, store: str) -> UnsafeStore:
        accept = ", or accept it (accept_unsafe = true among the store's options, or --accept-unsafe)"
        remedy = self.remedy + (accept if self.acceptable else "")
        return UnsafeStore(store, self.setting, self.found, remedy, self.promise)

    @property
    def finding(self) -> str:
        """For those who work with it all the same."""
        return f"{self.setting} is {self.found!r}: {self.promise}; {self.remedy}"


def postgres_faults(settings: Mapping[str, str]) -> list[SettingFault]:
    """Everything that is wrong with a server whose settings are these; what could not work at all comes first."""
    return [*_unusable(settings), *_forgetful(settings)]


def postgres_findings(settings: Mapping[str, str]) -> list[str]:
    """What is allowed, and still worth telling an operator."""
    found = []
    if settings.get("autovacuum") == "off":
        found.append("autovacuum is off, so claims get slower with every job that went through; set autovacuum = on")
    return found


def postgres_facts(settings: Mapping[str, str]) -> dict[str, str]:
    """What an operator may want to see of it."""
    standbys = settings.get("synchronous_standby_names", "")
    return {
        "server": settings.get("server_version", "unknown"),
        "synchronous_commit": settings.get("synchronous_commit", "unknown"),
        "synchronous standbys": standbys or "none",
        "data checksums": settings.get("data_checksums", "unknown"),
    }


def refuse_unless(store: str, faults: Sequence[SettingFault], *, accept_unsafe: bool) -> tuple[str, ...]:
    """The findings of what was accepted. Raises `UnsafeStore` for the first fault that was not, with the others as
    notes."""
    refused = [fault for fault in faults if not (accept_unsafe and fault.acceptable)]
    if refused:
        error = refused[0].error(store)
        for other in refused[1:]:
            error.add_note(str(other.error(store)))
        raise error
    return tuple(fault.finding for fault in faults)


def _unusable(settings: Mapping[str, str]) -> Iterable[SettingFault]:
    version = settings.get("server_version_num", "0")
    if int(version) < OLDEST_POSTGRES * 10_000:
        yield SettingFault(
            "server_version",
            settings.get("server_version", version),
            f"upgrade the server to {OLDEST_POSTGRES} or newer",
            "statements it does not know would fail",
        )
    if settings.get("in_recovery") == "on":
        yield SettingFault(
            "pg_is_in_recovery()",
            "true",
            "use the URL of the primary (with several hosts: target_session_attrs=read-write)",
            "nothing could be written, and what is read would be old",
        )
    if settings.get("default_transaction_read_only") == "on":
        yield SettingFault(
            "default_transaction_read_only",
            "on",
            "set it to off for this role and database",
            "nothing could be written",
        )
    encoding = settings.get("server_encoding", "")
    if encoding != "UTF8":
        yield SettingFault(
            "server_encoding",
            encoding,
            "use a database made with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            "some texts could not be stored",
        )
    isolation = settings.get("default_transaction_isolation", "read committed")
    if isolation not in ("read committed", "read uncommitted"):
        yield SettingFault(
            "default_transaction_isolation",
            isolation,
            "set it to 'read committed' for this role and database",
            "writes that meet would fail, and a put could bring an ended job back",
        )


def _forgetful(settings: Mapping[str, str]) -> Iterable[SettingFault]:
    if settings.get("fsync") == "off":
        yield SettingFault(
            "fsync",
            "off",
            "set fsync = on in postgresql.conf and reload",
            "a power failure can lose acknowledged jobs and damage the database",
            acceptable=True,
        )
    if settings.get("full_page_writes") == "off":
        yield SettingFault(
            "full_page_writes",
            "off",
            "set full_page_writes = on in postgresql.conf and reload",
            "a power failure can leave half-written pages that no recovery repairs",
            acceptable=True,
        )
    commit = settings.get("synchronous_commit", "on")
    if commit in ("off", "local"):
        yield SettingFault(
            "synchronous_commit",
            commit,
            "set it to on for the server, this database and this role (ALTER … SET synchronous_commit = on)",
            "a power failure can lose jobs that were acknowledged just before"
            if commit == "off"
            else "a fail-over to a standby can lose jobs that were acknowledged just before",
            acceptable=True,
        )
