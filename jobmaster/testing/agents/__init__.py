"""The agent contract as a test suite: a transport that passes `AgentContract` is one.

Derive a test class from it and give it one fixture, `store`, a fresh `AgentStore` per case (see `harness`). Cases that
can't apply are skipped by a trait, or because the store can't play that fault; import `pytest_terminal_summary` from
`jobmaster.testing.agents.report` into a `conftest.py` to have them listed with their reasons at the end of a run.
"""

import pytest

_CASES = (
    "amend",
    "cases",
    "claim",
    "control",
    "events",
    "harness",
    "hints",
    "lease",
    "machine",
    "model",
    "observer",
    "ops",
    "promote",
    "put",
    "reading",
    "reap",
    "release",
    "revoke",
    "settle",
    "workers",
)
# Must come before the modules are imported: a failed case then shows what was compared.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in _CASES))

from jobmaster.testing.agents.contract import AgentContract  # noqa: E402
from jobmaster.testing.agents.harness import AgentStore, SkewedClock, skip  # noqa: E402

__all__ = ["AgentContract", "AgentStore", "SkewedClock", "skip"]
