"""The checks that types alone cannot make. Each gives its faults as sentences, so that all of them can be reported."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from jobmaster.model.errors import NameInvalid, quoted
from jobmaster.model.names import NameKind, check_name
from jobmaster.model.retry import Retry

if TYPE_CHECKING:
    from jobmaster.settings.models import Timings

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9-]*)(?:\+[A-Za-z0-9_-]+)?:")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}")
_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
_NEXT_URL = re.compile(r",(?=[A-Za-z][A-Za-z0-9+-]*://)")
LOCAL_SCHEMES = frozenset({"sqlite", "memory"})
"""Stores that need no server, and so no address to agree on."""


def raise_if(faults: Sequence[str]) -> None:
    """A `ValueError`, the only error pydantic collects, of all faults, one a line."""
    if faults:
        raise ValueError("\n".join(faults))


def _named(kind: NameKind, value: str) -> str:
    try:
        return check_name(kind, value)
    except NameInvalid as error:
        raise ValueError(str(error)) from None


def cluster_name(value: str) -> str:
    return _named("cluster", value)


def agent_name(value: str) -> str:
    return _named("agent", value)


def worker_name(value: str) -> str:
    return _named("worker", value)


def handler_name(value: str) -> str:
    return _named("handler", value)


def lane_name(value: str) -> str:
    return _named("lane", value)


def reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError(f'{quoted(value)} is no place in code; expected MODULE:NAME, such as "shop.jobs:cluster"')
    return value


def time_zone(value: str) -> str:
    try:
        # Asked for a folder or a path, the zone loader opens it: only what looks like a zone is looked up.
        if _ZONE.fullmatch(value):
            ZoneInfo(value)
            return value
    except (KeyError, ValueError, OSError):
        pass
    raise ValueError(f'{quoted(value)} is no time zone; expected an IANA name such as "Europe/Berlin"')


def lanes_of(value: object) -> object:
    """One lane, a list of lanes, or a table from lane to own slots, as that table."""
    if isinstance(value, str):
        value = [lane.strip() for lane in value.split(",")]
    if isinstance(value, (list, tuple, set, frozenset)):
        return {lane: None for lane in value if isinstance(lane, str)} if all_text(value) else value
    if isinstance(value, Mapping):
        return {lane: None if slots == "shared" else slots for lane, slots in value.items()}
    return value


def all_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def lower(value: object) -> object:
    """`INFO` in a variable is what everybody writes."""
    return value.lower() if isinstance(value, str) else value


def retry_of(value: object) -> object:
    """A `Retry`, as its settings."""
    if not isinstance(value, Retry):
        return value
    return {
        "kind": value.kind,
        "base": timedelta(microseconds=value.base_us),
        "factor": value.factor,
        "cap": timedelta(microseconds=value.cap_us),
        "jitter": value.jitter,
        "max_attempts": value.max_attempts,
        "on": value.on,
        "never_on": value.never_on,
    }


def scheme_of(url: str) -> str:
    """Lower case, without a driver; empty where there is none."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def store_url(url: SecretStr) -> SecretStr:
    if not scheme_of(url.get_secret_value()):
        raise ValueError(
            "no scheme at its start; expected something like sqlite:///jobmaster.db or postgresql://host/database"
        )
    return url


def redacted(url: str) -> str:
    """Scheme, host and path only: whatever else is in a URL may be a secret. Of a list of URLs, each."""
    if len(urls := _NEXT_URL.split(url)) > 1:
        return ",".join(redacted(one) for one in urls)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"{scheme_of(url)}:…"
    where = host + (f":{port}" if port else "")
    hidden = "…@" if "@" in parts.netloc else ""
    return (
        f"{parts.scheme}:"
        + (f"//{hidden}{where}" if parts.netloc or url.startswith(f"{parts.scheme}://") else "")
        + parts.path
    )


def timing_faults(timings: "Timings") -> list[str]:
    faults = []
    trusted = timings.lease_ttl - timings.lease_margin
    if timings.lease_beat >= trusted:
        faults.append(
            f"lease_beat={timings.lease_beat:g} s must be less than lease_ttl - lease_margin = {trusted:g} s, or a "
            f"lease is lost between two beats; use a third of lease_ttl, {timings.lease_ttl / 3:g} s"
        )
    if timings.worker_heartbeat >= timings.worker_dead_after:
        faults.append(
            f"worker_heartbeat={timings.worker_heartbeat:g} s must be less than worker_dead_after="
            f"{timings.worker_dead_after:g} s, or living workers count as dead"
        )
    return faults


def redispatch_faults(waits: Mapping[str, float | None], lease_ttl: float) -> list[str]:
    """An agent is not given up before those who lost touch with it have stopped running its jobs."""
    return [
        f"agents.{name}.redispatch_after={seconds:g} s is too short; expected at least two leases, {2 * lease_ttl:g} s"
        for name, seconds in waits.items()
        if seconds is not None and seconds < 2 * lease_ttl
    ]


def cluster_faults(agents: Collection[str], workers: Sequence[tuple[object, object]]) -> list[str]:
    """Given each worker's agent and name: the names that must be unique are, and those that must exist do."""
    faults = []
    known = ", ".join(sorted(agents)) or "none"
    seen: set[object] = set()
    for number, (agent, name) in enumerate(workers):
        if not agent:
            faults.append(
                f"workers[{number}].agent: not given, and there are {len(agents)} agents: name one of {known}"
            )
        elif agent not in agents:
            faults.append(f"workers[{number}].agent={quoted(agent)} does not exist; the agents are: {known}")
        if name is not None and name in seen:
            faults.append(f"workers[{number}].name={quoted(name)} is taken by another worker; names are unique")
        seen.add(name)
    return faults
