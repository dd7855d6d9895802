"""The end of a run: which cases of a contract suite did not apply, and why. A hook for a `conftest.py`."""

from _pytest.terminal import TerminalReporter


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """List skipped contract cases by name; pytest's own list folds them by line."""
    reasons = [
        (report.nodeid.split("::", 1)[-1], str(report.longrepr[2]))
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple) and "contract" in report.nodeid
    ]
    if reasons:
        terminalreporter.section("contract cases that do not apply")
        for name, reason in sorted(reasons):
            terminalreporter.write_line(f"{name}: {reason.removeprefix('Skipped: ')}")
