"""Parts of a Postgres master's history, made as if they had been cut in their time."""

from collections.abc import Sequence

import psycopg

from jobmaster.master.parts import FAR


def divide(url: str, prefix: str, ends: Sequence[str]) -> None:
    """Empty parts that end at those ids, instead of the first and the one ahead, which are as empty; the last of them
    is followed by another one ahead. Without a word in the log of `auto_explain`."""
    with psycopg.connect(url, autocommit=True, options="-c auto_explain.log_min_duration=-1") as connection:
        for table in (f"{prefix}history", f"{prefix}run"):
            connection.execute(f"DROP TABLE {table}_first, {table}_ahead".encode())
            names = ["first", *(f"p{number}" for number in range(1, len(ends))), "ahead"]
            lows = ["MINVALUE", *(f"'{end}'" for end in ends)]
            for name, low, high in zip(names, lows, [*ends, FAR], strict=True):
                bounds = f"FROM ({low}) TO ('{high}')"
                connection.execute(f"CREATE TABLE {table}_{name} PARTITION OF {table} FOR VALUES {bounds}".encode())
