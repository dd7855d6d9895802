"""What MariaDB and MySQL say differently. The rest of the transport asks here, and is the same for both."""

from collections.abc import Sequence

from jobmaster.contracts.mysql_text import sql

MOST_KEYS = 10_000
"""In one statement. MariaDB plans no lookups of many more (optimizer_max_sel_args), and would refuse the statement."""


class Dialect:
    """One of the two."""

    def __init__(self, kind: str, version: tuple[int, int, int]) -> None:
        self.kind = kind
        self.version = version
        """As numbers, since they are compared."""

    @classmethod
    def of(cls, announced: str) -> "Dialect":
        """From the version that a server announces when it is connected to."""
        # MariaDB puts a version of MySQL before its own, for clients that would not talk to it else.
        text = announced.removeprefix("5.5.5-") if "MariaDB" in announced else announced
        numbers = [int("".join(filter(str.isdigit, part)) or 0) for part in text.split("-")[0].split(".")[:3]]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        return cls("mariadb" if "MariaDB" in announced else "mysql", (major, minor, patch))

    @property
    def mariadb(self) -> bool:
        return self.kind == "mariadb"

    @property
    def isolation(self) -> str:
        """The variable that says how isolated a session's transactions are."""
        return (
            "@@SESSION.tx_isolation"
            if self.mariadb and self.version < (11, 1, 0)
            else "@@SESSION.transaction_isolation"
        )

    def settings(self, seconds: float) -> str:
        """What a session is set to besides, as part of a SET: no statement (MySQL: no SELECT) takes longer than that,
        nor does whoever does not go on with his transaction (MySQL: six times as long) keep its locks, and the next
        number of a table is told as it is, not as it was when statistics were taken."""
        if self.mariadb:
            return f"max_statement_time = {seconds:g}, idle_transaction_timeout = {round(seconds)}"
        limits = f"max_execution_time = {round(seconds * 1000)}, wait_timeout = {round(6 * seconds)}"
        return f"{limits}, information_schema_stats_expiry = 0"

    def removal(self, table: str, keys: Sequence[str | int], key: str = "id", also: str = "") -> list[bytes]:
        """Deletes the rows of these keys, which must be the table's primary ones, and reads no others, though the
        server believes the table to be empty, as it may after a crash. MariaDB heeds no FORCE INDEX where it deletes,
        but what is safe goes by a key."""
        text = (
            f"SET STATEMENT sql_safe_updates = 1 FOR DELETE FROM {table} WHERE {key} IN ? {also}"
            if self.mariadb
            else f"DELETE gone FROM {table} AS gone FORCE INDEX (PRIMARY) WHERE gone.{key} IN ? {also}"
        )
        return [sql(text, keys[at : at + MOST_KEYS]) for at in range(0, len(keys), MOST_KEYS)]

    def given(self, columns: Sequence[str], rows: Sequence[bytes]) -> bytes:
        """A derived table of these rows, to be named with AS. MySQL has VALUES in a query from 8.0.19 on only."""
        names = ", ".join(columns).encode()
        if self.mariadb:
            body = b"VALUES %b" % b", ".join(rows)
        else:
            body = b" UNION ALL ".join([b"SELECT %b" % row[1:-1] for row in rows])
        return b"(WITH given (%b) AS (%b) SELECT * FROM given)" % (names, body)
