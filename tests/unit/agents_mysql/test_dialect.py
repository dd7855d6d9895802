"""What is said differently to MariaDB and MySQL."""

import pytest

from jobmaster_agents.mysql.dialect import MOST_KEYS, Dialect
from tests.contract.mysql_store import connect

ROWS = 2 * MOST_KEYS + 1


def test_a_removal_goes_by_key_however_many_there_are(mysql_module_url: str) -> None:
    keys = [f"k{n}" for n in range(1, ROWS + 1)]
    with connect(mysql_module_url) as connection, connection.cursor() as cursor:
        dialect = Dialect.of(connection.get_server_info())  # type: ignore[no-untyped-call]
        cursor.execute("CREATE TABLE many (id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY)")
        cursor.execute(f"INSERT INTO many SELECT CONCAT('k', seq) FROM seq_1_to_{ROWS}")
        removed = [cursor.execute(text.decode()) for text in dialect.removal("many", keys)]
        cursor.execute("SELECT COUNT(*) FROM many")
        assert cursor.fetchall() == ((0,),)
    assert removed == [MOST_KEYS, MOST_KEYS, 1]


@pytest.mark.parametrize("announced", ["8.0.36", "10.11.6-MariaDB"])
def test_a_removal_names_table_keys_and_what_else_holds(announced: str) -> None:
    [text] = Dialect.of(announced).removal("t", [1, 2], "seq", "AND at_us < 3")
    assert b"DELETE" in text
    assert b"seq IN (1, 2) AND at_us < 3" in text
    assert Dialect.of(announced).removal("t", []) == []
