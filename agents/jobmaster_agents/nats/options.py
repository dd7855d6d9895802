"""What may stand in the URL and the options of a NATS agent."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from jobmaster.contracts.tls import tls_context
from jobmaster.contracts.values import PUT_WINDOW_US
from jobmaster.model.errors import ConfigurationError, quoted

SECOND_US = 1_000_000
DAY_SECONDS = 86_400
RETENTIONS = ("workqueue", "limits")
_KNOWN = (
    *(
        "ack_wait",
        "accept_lazy_fsync",
        "accept_unsafe",
        "creds",
        "keep_outcomes",
        "monitor",
        "optimistic",
        "replicas",
        "retention",
    ),
    "tls",
)


class Options:
    """Raises `ConfigurationError` with all that is wrong."""

    def __init__(self, agent: str, given: Mapping[str, Any]) -> None:
        rest = dict(given)
        self.ack_wait_us = round(float(rest.pop("ack_wait", 15)) * SECOND_US)
        keep = rest.pop("keep_outcomes", DAY_SECONDS)
        self.keep_us = round(float(keep) * SECOND_US)
        """How long the outcomes that the master has read are kept: as long, an ended job can't be put again."""
        self.replicas: int = rest.pop("replicas", 1)
        self.retention: str = rest.pop("retention", "workqueue")
        self.creds: str | None = rest.pop("creds", None)
        self.tls = tls_context(rest.pop("tls", None), f"agent {agent!r}")
        monitor = rest.pop("monitor", ())
        self.monitors = tuple(monitor.split(",") if isinstance(monitor, str) else monitor)
        """Where the servers' monitoring answers."""
        self.accept_unsafe: bool = rest.pop("accept_unsafe", False)
        self.accept_lazy_fsync: bool = rest.pop("accept_lazy_fsync", False)
        optimistic = rest.pop("optimistic", ())
        self.optimistic = frozenset(optimistic.split(",") if isinstance(optimistic, str) else optimistic)
        """Lanes whose first claim writes no record."""
        faults = []
        if self.retention not in RETENTIONS:
            faults.append(f"agent {agent!r}: retention={quoted(self.retention)}; expected one of {RETENTIONS}")
        if self.replicas not in (1, 3, 5):
            faults.append(f"agent {agent!r}: replicas={quoted(self.replicas)}; expected 1, 3 or 5")
        if not SECOND_US <= self.ack_wait_us <= 3_600 * SECOND_US:
            faults.append(f"agent {agent!r}: ack_wait={self.ack_wait_us / SECOND_US:g}; expected 1 to 3,600 seconds")
        faults += [
            f"agent {agent!r}: {name}={quoted(getattr(self, name))}; expected true or false"
            for name in ("accept_unsafe", "accept_lazy_fsync")
            if not isinstance(getattr(self, name), bool)
        ]
        faults += [
            f"agent {agent!r}: monitor={quoted(one)}; expected http://host:port, such as http://localhost:8222"
            for one in self.monitors
            if not (isinstance(one, str) and one.startswith(("http://", "https://")))
        ]
        if self.creds is not None and find_spec("nkeys") is None:
            faults.append(f"agent {agent!r}: creds need the package nkeys: pip install nkeys, or the extra [nats] anew")
        if self.keep_us < 2 * PUT_WINDOW_US:
            faults.append(
                f"agent {agent!r}: keep_outcomes={keep}; expected at least {2 * PUT_WINDOW_US // SECOND_US} s"
            )
        if rest:
            known = ", ".join(map(repr, _KNOWN))
            faults.append(f"agent {agent!r}: unknown options {sorted(rest)}; the NATS transport has {known}")
        if faults:
            raise ConfigurationError(faults)

    def connecting(self) -> dict[str, Any]:
        """What nats-py is told beside the servers."""
        found: dict[str, Any] = {}
        if self.creds is not None:
            found["user_credentials"] = self.creds
        if self.tls is not None:
            found["tls"] = self.tls
        return found


def servers(agent: str, url: str) -> list[str]:
    """The servers of a URL, or of several with commas between. Raises `ConfigurationError`."""
    found = url.split(",")
    faults = []
    for one in found:
        try:
            parts = urlsplit(one)
            fine = parts.scheme in ("nats", "tls") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            fine = False
        if not fine:
            shown = quoted(one.rpartition("@")[2])
            faults.append(f"agent {agent!r}: {shown} is no NATS server; expected nats://host:port or tls://host:port")
    if faults:
        raise ConfigurationError(faults)
    return found
