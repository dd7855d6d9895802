"""Fresh databases on a server that is there."""

import secrets
from urllib.parse import unquote, urlsplit


def create_database(server_url: str, template: str | None = None) -> str:
    """A new, empty database on the server of that URL, or a copy of the database `template`; gives its URL."""
    name = f"jm_test_{secrets.token_hex(6)}"
    _execute(server_url, f"CREATE DATABASE {name}" + ("" if template is None else f" TEMPLATE {template}"))
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


def drop_database(server_url: str, url: str) -> None:
    """Gone, whoever is still connected."""
    name = urlsplit(url).path.lstrip("/")
    force = " WITH (FORCE)" if urlsplit(server_url).scheme.startswith("postgres") else ""
    _execute(server_url, f"DROP DATABASE IF EXISTS {name}{force}")


def _execute(server_url: str, statement: str) -> None:
    parts = urlsplit(server_url)
    if parts.scheme.startswith("postgres"):
        import psycopg

        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(statement.encode())
        return
    import pymysql

    user, password = unquote(parts.username or "root"), unquote(parts.password or "")
    host, port = parts.hostname or "127.0.0.1", parts.port or 3306
    with pymysql.connect(host=host, port=port, user=user, password=password) as connection:
        connection.cursor().execute(statement)
