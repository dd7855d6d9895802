"""SQL as it is sent to MySQL and MariaDB by agent and master: values written into the text.

The protocol that takes values apart from the text needs a round trip more for each statement and takes no lists; the
drivers write values into the text as well, one by one and slowly. Sessions are utf8mb4, whose bytes beyond ASCII are
never a quote or a backslash, and their sql_mode is ours (`mysql_settings.MYSQL_SESSION`), so two replacements make any
text safe.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

MOST_BYTES = 2_000_000
"""Of rows in one statement; a row alone may be larger."""


def literal(value: Any) -> bytes:
    """One value. A sequence becomes a list for `IN`; an empty one holds nothing, as NULL is equal to nothing."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, str):
        return b"'%b'" % value.encode().replace(b"\\", b"\\\\").replace(b"'", b"''")
    if isinstance(value, bytes):
        return b"_binary'%b'" % value.replace(b"\\", b"\\\\").replace(b"'", b"''")
    if isinstance(value, list | tuple | set | frozenset):
        return b"(%b)" % (b", ".join(map(literal, value)) or b"NULL")
    raise TypeError(f"a {type(value).__name__} is no SQL value")


@lru_cache(maxsize=4096)
def often(value: str | bytes) -> bytes:
    """`literal` of what comes again and again, such as a name."""
    return literal(value)


def row(*values: Any) -> bytes:
    """One row of VALUES."""
    return b"(%b)" % b", ".join(map(literal, values))


def keyed(job_id: str, *values: Any) -> bytes:
    """One row of a derived table whose first column is compared with a column of ids. As plain text it would have the
    session's character set there, and the index on ids could not be used."""
    return b"(%b)" % b", ".join([b"_ascii" + literal(job_id), *map(literal, values)])


def sql(text: str, *values: Any) -> bytes:
    """The text with each `?` replaced by a value."""
    parts = _parts(text)
    if len(parts) != len(values) + 1:
        raise ValueError(f"{len(values)} values for {len(parts) - 1} placeholders")
    if not values:
        return parts[0]
    pieces = [parts[0]]
    for value, part in zip(values, parts[1:], strict=True):
        pieces += (literal(value), part)
    return b"".join(pieces)


def chunks(rows: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Rows in pieces that fit into a statement each."""
    piece: list[bytes] = []
    size = 0
    for given in rows:
        if piece and size + len(given) > MOST_BYTES:
            yield piece
            piece, size = [], 0
        piece.append(given)
        size += len(given)
    if piece:
        yield piece


@lru_cache(maxsize=512)
def _parts(text: str) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in text.split("?"))
