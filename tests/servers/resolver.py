"""Which server of a kind this run uses, decided in one place.

In this order: the one named by `JOBMASTER_TEST_<KIND>_URL`; a throw-away one, started on a free loopback port in a
folder of its own; a container, where a Docker engine answers. `JOBMASTER_TEST_SERVERS=containers` takes containers
instead of the second.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.servers.containers import engine_answers, start_container
from tests.servers.errors import Unavailable
from tests.servers.mariadb import Mariadb
from tests.servers.nats import Nats
from tests.servers.postgres import Postgres
from tests.servers.process import ServerProcess

KINDS: dict[str, type[ServerProcess]] = {"postgres": Postgres, "mysql": Mariadb, "nats": Nats}
CHOICE = "JOBMASTER_TEST_SERVERS"

Started = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Endpoint:
    """A server that answers."""

    kind: str
    url: str
    origin: str
    """`given`, `started` or `container`."""
    stop: Callable[[], None] = field(repr=False)
    """Ends it, unless it was given."""
    process: ServerProcess | None = None
    """The server, where it is a process of ours."""


def variable(kind: str) -> str:
    """The environment variable that names a server of that kind."""
    return f"JOBMASTER_TEST_{kind.upper()}_URL"


def resolve(
    kind: str,
    environment: Mapping[str, str] = os.environ,
    start: Callable[[str], ServerProcess] = lambda kind: KINDS[kind]().start(),
    answers: Callable[[], bool] = engine_answers,
    contain: Callable[[str], Started] = start_container,
) -> Endpoint:
    """A server of that kind (`postgres`, `mysql`, `nats`). Raises `Unavailable` with every reason."""
    if url := environment.get(variable(kind)):
        return Endpoint(kind, url, "given", stop=lambda: None)
    choice = environment.get(CHOICE, "")
    if choice not in ("", "containers"):
        raise Unavailable(f"{CHOICE}={choice!r}: expected 'containers' or nothing")
    reasons = []
    if choice != "containers":
        try:
            process = start(kind)
        except Unavailable as error:
            reasons.append(str(error))
        else:
            return Endpoint(kind, process.url, "started", stop=process.remove, process=process)
    if answers():
        try:
            url, stop = contain(kind)
        except Unavailable as error:
            reasons.append(str(error))
        else:
            return Endpoint(kind, url, "container", stop=stop)
    else:
        reasons.append("no Docker engine answers")
    raise Unavailable(f"{kind}: {'; '.join(reasons)}; or name a server in {variable(kind)}")
