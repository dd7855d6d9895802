"""What a store's mark and incarnation say about it: is it the one that is known, wiped, or set back? Pure."""

from enum import StrEnum

from msgspec import Struct

from jobmaster.contracts.values import ProbeReport


class Mark(Struct, frozen=True):
    """As far as a store was seen."""

    incarnation: str
    high_water: int


class Verdict(StrEnum):
    TRUSTED = "trusted"
    STRANGE = "strange"
    """Not the life of the store that is known: wiped, or another one."""
    SET_BACK = "set_back"
    """The same life, at an earlier time."""
    EMPTIED = "emptied"
    """Its jobs are gone from under it."""
    UNDECIDED = "undecided"
    """Another one than this process knew, and the master, who would know, is away."""


def judge(report: ProbeReport, own: Mark | None, masters: Mark | None, *, master_answers: bool) -> Verdict:
    """What to make of a store as `report` shows it. `own` is how this process saw it last, `masters` how the master
    knows it; both must have been read before the report, or a mark that rose meanwhile would look fallen. Without the
    master a process goes by what it knew itself, and trusts what it sees first: there is nothing to compare it with."""
    if report.incarnation not in {mark.incarnation for mark in (masters or own,) if mark is not None}:
        if masters is not None or (master_answers and own is not None):
            return Verdict.STRANGE
        return Verdict.TRUSTED if own is None else Verdict.UNDECIDED
    if report.high_water < floor(report, own, masters):
        return Verdict.SET_BACK
    return Verdict.EMPTIED if report.emptied else Verdict.TRUSTED


def floor(report: ProbeReport, own: Mark | None, masters: Mark | None) -> int:
    """The highest mark that anybody has seen of this life of the store."""
    marks = (mark for mark in (own, masters) if mark is not None and mark.incarnation == report.incarnation)
    return max((mark.high_water for mark in marks), default=0)


def why(verdict: Verdict, report: ProbeReport, own: Mark | None, masters: Mark | None) -> str:
    """A verdict against a store, for people."""
    match verdict:
        case Verdict.STRANGE:
            known = masters or own
            before = "nothing" if known is None else known.incarnation
            return f"it is another store than is known: incarnation {report.incarnation}, expected {before}"
        case Verdict.SET_BACK:
            before_mark = floor(report, own, masters)
            return f"it was set back: its outbox had reached {before_mark} and stands at {report.high_water}"
        case _:
            return "its jobs are gone: its counts speak of some and its table holds none"
