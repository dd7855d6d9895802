"""Tests of whole verbs run on memory stores and on a SQLite file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.scheduler.kit import folder

ON_BOTH = frozenset({"test_bulk", "test_interventions", "test_listing", "test_results"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.definition.path.stem
    # What is refused is refused before any store is asked.
    storeless = hasattr(metafunc.function, "hypothesis") or "refused" in metafunc.function.__name__
    stores = ["memory", "sqlite"] if name in ON_BOTH and not storeless else ["memory"]
    metafunc.parametrize("stores", stores, indirect=True)


@pytest.fixture(autouse=True)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    token = folder.set(tmp_path if request.param == "sqlite" else None)
    yield
    folder.reset(token)
