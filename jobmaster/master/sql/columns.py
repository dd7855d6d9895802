"""Column types, each meaning the same on every database.

Two rules stand behind the variants: text is compared byte by byte everywhere (MySQL's default collation takes `a`, `A `
and `á` for one key), and payloads are bytes, since no database's JSON type gives back what it was given.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Dialect, Integer, LargeBinary, SmallInteger, String, Text, TypeDecorator
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

_MYSQL = ("mysql", "mariadb")


class KeyText(TypeDecorator[str]):
    """A user's key: 1 to 255 UTF-8 bytes, any of them, told apart byte by byte."""

    impl = String(255)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in _MYSQL:
            return dialect.type_descriptor(mysql.VARBINARY(255))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TEXT(collation="C"))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return value.encode() if value is not None and dialect.name in _MYSQL else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value


def name(length: int = 64) -> TypeEngine[str]:
    """A name in our alphabet: ASCII without spaces."""
    return (
        String(length)
        .with_variant(Text(), "sqlite")
        .with_variant(String(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)
    )


def text() -> TypeEngine[str]:
    """Words for people."""
    # The longest error is one byte longer than MySQL's TEXT.
    return Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), *_MYSQL)


Id = (
    Text()
    .with_variant(postgresql.UUID(as_uuid=False), "postgresql")
    .with_variant(mysql.CHAR(36, charset="ascii", collation="ascii_bin"), *_MYSQL)
)
"""Canonical UUID text."""

Payload = LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL)
Micros = BigInteger().with_variant(Integer(), "sqlite")
"""Microseconds UTC; also any other 63-bit number."""
Count = Integer()
Small = SmallInteger().with_variant(Integer(), "sqlite")
Flag = Boolean(create_constraint=False)
Key = KeyText()
