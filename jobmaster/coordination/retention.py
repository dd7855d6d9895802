"""Retention: how long what ended is kept, by state and handler. Pure."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from jobmaster.contracts.entries import EVERYTHING, Expiry
from jobmaster.model.states import TERMINAL

DAY_US = 86_400_000_000
FOREVER = "forever"


class Kept(Protocol):
    """Days by state; None: as long as what is set for all."""

    @property
    def succeeded(self) -> float | str | None: ...
    @property
    def failed(self) -> float | str | None: ...
    @property
    def cancelled(self) -> float | str | None: ...


class Retention(Kept, Protocol):
    """The settings."""

    @property
    def handlers(self) -> Mapping[str, Kept]: ...


class Rule(Struct, frozen=True):
    """Which jobs go when."""

    which: Expiry
    keep_us: int


def rules(days: float | None, retention: Retention) -> list[Rule]:
    """What to prune, `days` being for what nothing else is said of (None: for ever). A job is in one rule at most."""
    found: list[Rule] = []
    for state in sorted(TERMINAL):
        own = {
            name: kept
            for name, table in retention.handlers.items()
            if (kept := getattr(table, state.value)) is not None
        }
        said = getattr(retention, state.value)
        default = days if said is None else said
        if default is not None and default != FOREVER:
            found.append(Rule(Expiry(frozenset({state}), besides=frozenset(own), jobs_only=True), _us(default)))
        found += [
            Rule(Expiry(frozenset({state}), handler=name, jobs_only=True), _us(kept))
            for name, kept in sorted(own.items())
            if kept != FOREVER
        ]
    plain = [rule for rule in found if rule.which.handler is None and not rule.which.besides]
    if len(plain) == len(found) == len(TERMINAL) and len({rule.keep_us for rule in found}) == 1:
        return [Rule(EVERYTHING, found[0].keep_us)]
    # Occurrences, events and the like go by what is set for all.
    return [*found, *([Rule(Expiry(states=frozenset()), _us(days))] if days is not None else [])]


def _us(days: float | str) -> int:
    return round(float(days) * DAY_US)
