"""What is made of a store, by what it says of itself and what was known of it."""

import pytest

from jobmaster.contracts.values import ProbeReport
from jobmaster.coordination.marks import Mark, Verdict, judge, why

T, STRANGE, BACK, EMPTIED, OPEN = (
    Verdict.TRUSTED,
    Verdict.STRANGE,
    Verdict.SET_BACK,
    Verdict.EMPTIED,
    Verdict.UNDECIDED,
)


def seen(incarnation: str, high_water: int, *, emptied: bool = False) -> ProbeReport:
    return ProbeReport(incarnation=incarnation, high_water=high_water, emptied=emptied)


@pytest.mark.parametrize(
    ("report", "own", "masters", "answers", "verdict"),
    [
        (seen("a", 5), None, None, True, T),
        (seen("a", 5), None, None, False, T),
        (seen("a", 5), None, Mark("a", 5), True, T),
        (seen("a", 5), None, Mark("a", 6), True, BACK),
        (seen("a", 5), Mark("a", 5), None, False, T),
        (seen("a", 5), Mark("a", 6), None, False, BACK),
        (seen("a", 5), Mark("a", 6), Mark("a", 4), True, BACK),
        (seen("a", 5), Mark("a", 4), Mark("a", 6), True, BACK),
        (seen("a", 5), None, Mark("b", 0), True, STRANGE),
        (seen("a", 5), Mark("a", 5), Mark("b", 0), True, STRANGE),
        (seen("b", 5), Mark("a", 5), None, True, STRANGE),
        (seen("b", 5), Mark("a", 9), None, False, OPEN),
        # Reconciled by others: the master says that it is right, and the marks of the old life say nothing about it.
        (seen("b", 5), Mark("a", 9), Mark("b", 5), True, T),
        (seen("b", 4), Mark("a", 9), Mark("b", 5), True, BACK),
        (seen("a", 5, emptied=True), Mark("a", 5), Mark("a", 5), True, EMPTIED),
    ],
)
def test_verdicts(report: ProbeReport, own: Mark | None, masters: Mark | None, answers: bool, verdict: Verdict) -> None:
    assert judge(report, own, masters, master_answers=answers) is verdict


def test_a_verdict_says_what_was_seen_and_what_was_expected() -> None:
    assert "reached 9 and stands at 5" in why(BACK, seen("a", 5), Mark("a", 7), Mark("a", 9))
    assert "incarnation b, expected a" in why(STRANGE, seen("b", 5), Mark("b", 7), Mark("a", 9))
    assert "table holds none" in why(EMPTIED, seen("a", 5), None, None)
