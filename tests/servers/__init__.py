"""Real servers for tests and benchmarks: Postgres, MariaDB, NATS and pgbouncer.

`resolve(kind)` says which server of a kind this run uses: the one that `JOBMASTER_TEST_<KIND>_URL` names, a throw-away
one on a free loopback port, or a container. `Postgres`, `Mariadb`, `Nats` and `Pgbouncer` start servers of one's own,
to be killed, frozen and restarted.
"""

from tests.servers.asking import ask, connected, is_postgres
from tests.servers.databases import create_database, drop_database
from tests.servers.errors import Unavailable
from tests.servers.mariadb import Mariadb
from tests.servers.nats import Nats
from tests.servers.nats_cluster import NatsCluster
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import Postgres
from tests.servers.resolver import Endpoint, resolve

__all__ = [
    "Endpoint",
    "Mariadb",
    "Nats",
    "NatsCluster",
    "Pgbouncer",
    "Postgres",
    "Unavailable",
    "ask",
    "connected",
    "create_database",
    "drop_database",
    "is_postgres",
    "resolve",
]
