"""The parts of a builder that are about one agent or one worker: their methods return the part they are called on."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol, Self

from pydantic import SecretStr

from jobmaster.model.errors import quoted
from jobmaster.model.priority import LaneOrder
from jobmaster.settings.checks import redacted, scheme_of
from jobmaster.settings.models import WorkerMode

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "memory": ("memory",),
    "mysql": ("mysql", "mariadb"),
    "nats": ("nats", "tls"),
    "postgres": ("postgresql", "postgres"),
    "sqlite": ("sqlite",),
}
"""The URL schemes behind each `use_<kind>_…` method; the first one is meant by a path without a scheme."""


class Note(Protocol):
    """The builder's: keeps faults, and refuses every call after `build()`."""

    def __call__(self, *faults: str) -> None: ...


def store_tree(
    url: str | os.PathLike[str], options: Mapping[str, Any], kind: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """A store's settings from what a `use_…` method was given, and what is wrong with it."""
    text = os.fspath(url)
    scheme = scheme_of(text)
    if kind == "sqlite" and not scheme:
        text, scheme = f"sqlite:///{text}", "sqlite"
    faults = []
    if kind is not None and scheme not in SCHEMES[kind]:
        expected = " or ".join(f"{known}://" for known in SCHEMES[kind])
        faults.append(f"{quoted(redacted(text))} is no {kind} URL; expected {expected}…, or call use_master/use_agent")
    # Wrapped here already, so that no traceback through the builder shows a password.
    tree: dict[str, Any] = {"url": SecretStr(text)}
    if options:
        tree["options"] = dict(options)
    return tree, faults


class AgentSection:
    """One agent of a builder."""

    def __init__(self, note: Note, name: str, tree: dict[str, Any]) -> None:
        self._note = note
        self._name = name
        self._tree = tree

    def use_agent(self, url: str, **options: Any) -> Self:
        """The transport that the URL's scheme stands for, built-in or from an installed package."""
        return self._use(url, options)

    def use_sqlite_for_agent(self, url: str | os.PathLike[str], **options: Any) -> Self:
        """A file: its path, or a `sqlite:///` URL."""
        return self._use(url, options, "sqlite")

    def use_memory_for_agent(self, url: str = "memory:", **options: Any) -> Self:
        """This process's memory: for tests, as it promises nothing."""
        return self._use(url, options, "memory")

    def use_postgres_for_agent(self, url: str, **options: Any) -> Self:
        return self._use(url, options, "postgres")

    def use_mysql_for_agent(self, url: str, **options: Any) -> Self:
        return self._use(url, options, "mysql")

    def use_nats_for_agent(self, url: str | Sequence[str], **options: Any) -> Self:
        """A server with JetStream, or the servers of one cluster."""
        return self._use(url if isinstance(url, str) else ",".join(url), options, "nats")

    def redispatch_after(self, duration: timedelta | float | str) -> Self:
        """Place its jobs on other agents once nobody has reached it for that long; at least two leases. This weakens a
        promise: what runs or has ended on an agent that can't be asked runs once more, maybe at the same time, as a job
        of a higher epoch; what the earlier copy comes to no longer counts. Jobs that are `at_most_once`, and those the
        master has not heard of, wait. Unless this is called, all do."""
        self._note()
        self._tree["redispatch_after"] = duration
        return self

    def _use(self, url: str | os.PathLike[str], options: Mapping[str, Any], kind: str | None = None) -> Self:
        tree, faults = store_tree(url, options, kind)
        self._note(*(f"agents.{self._name}.url: {fault}" for fault in faults))
        self._tree.update(tree)
        return self


class WorkerSection:
    """One worker of a builder."""

    def __init__(self, note: Note, tree: dict[str, Any]) -> None:
        self._note = note
        self._tree = tree

    def agent(self, name: str) -> Self:
        """The agent it is attached to. With one agent it need not be said."""
        return self._set("agent", name)

    def slots(self, slots: int) -> Self:
        """How many jobs it runs at a time."""
        return self._set("slots", slots)

    def lanes(self, *lanes: str) -> Self:
        """The lanes it serves, sharing its slots; replaces those named before."""
        return self._set("lanes", dict.fromkeys(lanes))

    def lane(self, name: str, slots: int | None = None, *, weight: int | None = None) -> Self:
        """One more lane; with `slots` it has that many of its own, beside the worker's shared ones, and no others.
        `weight`: its share of the slots it shares with others, while all of them have jobs; 1 unless given."""
        if weight is not None:
            self._set("weights", {**self._tree.get("weights", {}), name: weight})
        return self._set("lanes", {**self._tree.get("lanes", {}), name: slots})

    def lane_order(self, order: LaneOrder | str) -> Self:
        """`weighted`, or `strict`: the first lane named goes first, those behind it together get an eighth."""
        return self._set("lane_order", order)

    def prefetch(self, jobs: int) -> Self:
        """How many jobs it claims beyond its slots."""
        return self._set("prefetch", jobs)

    def mode(self, mode: WorkerMode | str) -> Self:
        """What its process takes part in, beside running jobs."""
        return self._set("mode", mode)

    def _set(self, key: str, value: Any) -> Self:
        self._note()
        self._tree[key] = value
        return self
