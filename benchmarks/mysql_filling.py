"""Fill an agent's and a master's tables on MySQL with copies of the rows that are there, as fast as the server can."""

from benchmarks.mysql_server import operator
from jobmaster.contracts.namespace import table_prefix
from jobmaster_agents.mysql.tables import Tables

TABLES = Tables("bench", "transport-1")
HISTORY = f"{table_prefix('bench')}history"
READY, DELAYED = 0, 1


def fill(url: str, ready: int, delayed: int, history: int) -> None:
    """So many more of each, like the one of its kind that is there (`subject.seed`)."""
    with operator(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE numbers (n INT PRIMARY KEY)")
        cursor.execute("INSERT INTO numbers VALUES (1)")
        size, most = 1, max(ready, delayed, history)
        while size < most:
            cursor.execute(f"INSERT INTO numbers SELECT n + {size} FROM numbers WHERE n + {size} <= {most}")
            size *= 2
        for table, kind, count in (
            (TABLES.job, READY, ready),
            (TABLES.job, DELAYED, delayed),
            (HISTORY, None, history),
        ):
            where = "" if kind is None else f"WHERE st = {kind}"
            cursor.execute(f"SHOW COLUMNS FROM {table}")
            columns = [row[0] for row in cursor.fetchall()]
            # Places behind those there are; ids in no order, which is worse for the server than new ones are.
            new = {"id": "UUID()", "seq": "p.seq + n.n"}
            values = ", ".join(new.get(name, f"p.{name}") for name in columns)
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM numbers AS n "
                f"CROSS JOIN (SELECT * FROM {table} {where} ORDER BY id LIMIT 1) AS p WHERE n.n <= {count}"
            )
        waiting = f"UPDATE {TABLES.lane} SET n_ready = n_ready + {ready}, n_delayed = n_delayed + {delayed}"
        cursor.execute(waiting)
        cursor.execute("DROP TABLE numbers")
