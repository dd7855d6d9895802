"""Statements as an operator would give them, to either kind of SQL server."""

from typing import Any
from urllib.parse import unquote, urlsplit


def is_postgres(url: str) -> bool:
    return urlsplit(url).scheme.startswith("postgres")


def connected(url: str) -> Any:
    """A connection of one's own that commits by itself: psycopg's or pymysql's."""
    if is_postgres(url):
        import psycopg

        return psycopg.connect(url, autocommit=True)
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path[1:] or None,
        charset="utf8mb4",
        autocommit=True,
    )


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows, if it gives any, by a connection made for it."""
    connection = connected(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement.encode() if is_postgres(url) else statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()
