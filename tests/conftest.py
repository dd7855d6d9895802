"""What holds for every test."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def unconfigured_logging() -> Iterator[None]:
    """A cluster that is run configures logging where the program has not: that must not outlast its test."""
    yield
    structlog.reset_defaults()
