"""Lists the contract cases that were skipped at the end of a run."""

from jobmaster.testing.agents.report import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]
