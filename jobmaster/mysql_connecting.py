"""Connections to MySQL and MariaDB, for agent and master: encrypted where that is asked for, or not at all.

The driver takes a TLS context for a wish: to a server that offers no TLS, or behind somebody who takes the offer away,
it logs in all the same, and would tell such a one the password if it asked for that.
"""

import asyncio
from contextlib import suppress
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import pymysql
from pymysql.constants import CLIENT, CR

CLOSE_SECONDS = 1.0
"""What an orderly end may take."""
REMEDY = "give the server a certificate (ssl_cert, ssl_key), or leave out the option 'tls'"


class _Connection(aiomysql.Connection):  # type: ignore[misc]
    """Looks at what the server offers before it logs in, and leaves no socket behind."""

    async def _get_server_information(self) -> None:
        await super()._get_server_information()
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise pymysql.err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"the server offers no TLS; {REMEDY}")

    async def ensure_closed(self) -> None:
        """Say good-bye. The socket is closed when this returns; an encrypted one takes several turns of the loop, and
        whoever ends the loop before that leaves it open."""
        writer = self._writer
        await super().ensure_closed()
        if writer is not None:
            with suppress(OSError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await writer.wait_closed()

    def abort(self) -> None:
        """End it without a word: what was to be sent is dropped, as a server that takes nothing would keep it open."""
        writer: Any = self._writer
        if writer is not None:
            writer.transport.abort()
        self.close()


async def connect(**arguments: Any) -> Any:
    """As `aiomysql.connect`; with `ssl` the connection is encrypted. Raises what that does: its words for a connection
    that can't be made are those of what was in the way."""
    connection = _Connection(**arguments)
    try:
        await connection._connect()  # noqa: SLF001 - as `aiomysql.connect` does
    except pymysql.err.OperationalError as error:
        if isinstance(error.__cause__, OSError) and str(error.__cause__):
            raise pymysql.err.OperationalError(error.args[0], f"{error.args[1]}: {error.__cause__}") from error
        raise
    writer: Any = connection._writer  # noqa: SLF001 - nothing else tells
    if arguments.get("ssl") and writer.get_extra_info("ssl_object") is None:
        connection.close()
        raise pymysql.err.OperationalError(CR.CR_SSL_CONNECTION_ERROR, f"the connection is not encrypted; {REMEDY}")
    return connection
