"""`import jobmaster`: what it offers, and what it does not load."""

import json
import subprocess
import sys

import jobmaster

HEAVY = ("sqlalchemy", "alembic", "fastapi", "typer", "pydantic", "pydantic_settings", "rich", "asyncpg", "sqlite3")
MEASURE = """
import json, sys, time
begin = time.perf_counter()
import jobmaster
took = time.perf_counter() - begin
print(json.dumps([took, [name for name in {heavy!r} if name in sys.modules]]))
"""


def measure() -> tuple[float, list[str]]:
    source = MEASURE.replace("{heavy!r}", repr(HEAVY))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    took, loaded = json.loads(done.stdout)
    return took, loaded


def test_importing_takes_at_most_a_quarter_of_a_second_and_loads_no_library() -> None:
    # The best of three: the machine may be busy, but an import that is too slow is so each time.
    measured = [measure() for _ in range(3)]

    assert min(took for took, _ in measured) <= 0.25
    assert measured[0][1] == []


def test_every_public_name_exists_and_they_are_sorted() -> None:
    assert sorted(set(jobmaster.__all__)) == sorted(jobmaster.__all__)
    assert list(jobmaster.__all__) == sorted(jobmaster.__all__, key=lambda name: (name.islower(), name))
    for name in jobmaster.__all__:
        assert getattr(jobmaster, name) is not None
    assert dir(jobmaster) == sorted(jobmaster.__all__)


def test_other_names_are_refused_as_by_any_module() -> None:
    assert not hasattr(jobmaster, "JobMaster")
