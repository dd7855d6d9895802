"""Values in the text of a statement, and what the two kinds of server say differently."""

import pytest

from jobmaster.contracts import mysql_text as text
from jobmaster.contracts.mysql_text import chunks, keyed, literal, row, sql
from jobmaster_agents.mysql.dialect import Dialect
from tests.contract.mysql_store import connect

AWKWARD = ["", "'", "\\", "\\'", "'';--", "a\x00b\n", "naïve 😀", "%s ?", '"`']


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"NULL"),
        (True, b"1"),
        (-5, b"-5"),
        ("it's \\", b"'it''s \\\\'"),
        (b"\xff'", b"_binary'\xff'''"),
        (["a", 1], b"('a', 1)"),
        (frozenset(), b"(NULL)"),
    ],
)
def test_a_value_is_written_into_the_text(value: object, expected: bytes) -> None:
    assert literal(value) == expected


def test_what_is_no_value_is_refused() -> None:
    with pytest.raises(TypeError, match="float is no SQL value"):
        literal(0.5)
    with pytest.raises(ValueError, match="1 values for 2 placeholders"):
        sql("SELECT ?, ?", 1)


def test_a_value_may_look_like_a_placeholder() -> None:
    assert sql("SELECT ?, ?", "?", 2) == b"SELECT '?', 2"
    assert keyed("i", "?") == b"(_ascii'i', '?')"


def test_rows_are_cut_into_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MOST_BYTES", 12)
    rows = [row("a"), row("b"), row("c" * 20), row("d")]
    assert list(chunks(rows)) == [rows[:2], rows[2:3], rows[3:]]


@pytest.mark.parametrize(
    ("announced", "kind", "version", "isolation"),
    [
        ("10.11.6-MariaDB-0+deb12u1", "mariadb", (10, 11, 6), "@@SESSION.tx_isolation"),
        ("5.5.5-10.6.12-MariaDB", "mariadb", (10, 6, 12), "@@SESSION.tx_isolation"),
        ("11.4.2-MariaDB", "mariadb", (11, 4, 2), "@@SESSION.transaction_isolation"),
        ("8.0.36-0ubuntu0.22.04.1", "mysql", (8, 0, 36), "@@SESSION.transaction_isolation"),
        ("9.1.0", "mysql", (9, 1, 0), "@@SESSION.transaction_isolation"),
    ],
)
def test_a_server_is_known_by_what_it_announces(
    announced: str, kind: str, version: tuple[int, int, int], isolation: str
) -> None:
    dialect = Dialect.of(announced)
    assert (dialect.kind, dialect.version, dialect.isolation) == (kind, version, isolation)


def test_rows_are_given_to_each_in_its_words() -> None:
    rows = [b"(1, 2)", b"(3, 4)"]
    assert b"VALUES (1, 2), (3, 4)" in Dialect.of("10.11.6-MariaDB").given(("a", "b"), rows)
    assert b"SELECT 1, 2 UNION ALL SELECT 3, 4" in Dialect.of("8.0.36").given(("a", "b"), rows)


@pytest.mark.parametrize("kind", ["mariadb", "mysql"])
def test_a_server_gives_back_what_was_written(mysql_module_url: str, kind: str) -> None:
    # MySQL's words are MariaDB's as well.
    dialect = Dialect(kind, (10, 11, 0))
    rows = [keyed(f"{at}", value, value.encode() + b"\xff") for at, value in enumerate(AWKWARD)]
    given = dialect.given(("id", "words", "bytes"), rows)
    with connect(mysql_module_url) as connection, connection.cursor() as cursor:
        cursor.execute(b"SELECT id, words, bytes FROM %b AS given ORDER BY id" % given)
        found = list(cursor.fetchall())
    assert found == [(f"{at}", value, value.encode() + b"\xff") for at, value in enumerate(AWKWARD)]
