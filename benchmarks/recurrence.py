"""How fast the next occurrence of an expression is computed, beside croniter and cronsim.

    python -m benchmarks.recurrence

Prints a table and writes `build/bench/recurrence.json`; exits 1 if plain cron misses its target. Processor time is
counted, not the clock on the wall: nothing here waits. Subjects take turns, round by round.
"""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from benchmarks.rows import Row, report, row
from jobmaster.recurrence import Recurrence, cron
from jobmaster.recurrence.cronparse import parse_cron
from jobmaster.recurrence.zones import to_us

ROUNDS = 5
TARGET = 20_000
NEXT, NEXT_PEER, PARSED = 20_000, 2_000, 1_000
START = datetime(2026, 1, 1, tzinfo=UTC)
SCENARIOS = [
    ("next_plain", "*/5 * * * *", "UTC"),
    ("next_plain_zone", "0 9 * * MON-FRI", "Europe/Berlin"),
    ("next_seconds", "*/10 * * * * *", "Europe/Berlin"),
    ("next_monthly", "0 0 1 * *", "UTC"),
    ("next_last_friday", "0 17 * * FRIL", "America/New_York"),
]


def ours(recurrence: Recurrence) -> Callable[[int], None]:
    def walk(count: int) -> None:
        # A hundred years at most, again and again: schedules live near to now.
        start = tick = to_us(START)
        for number in range(count):
            following = recurrence.next_after(tick)
            assert following is not None
            tick = following if number % 1_000 else start

    return walk


def stored(recurrence: Recurrence) -> Callable[[int], None]:
    """As a planner meets it: JSON text, decoded and asked."""
    text, at_us = recurrence.to_json(), to_us(START)

    def walk(count: int) -> None:
        for number in range(count):
            assert Recurrence.from_json(text).next_after(at_us + number) is not None

    return walk


def by_croniter(expression: str, zone: str) -> Callable[[int], None]:
    expression = expression.replace("FRIL", "L5")

    def walk(count: int) -> None:
        peer = croniter(expression, START.astimezone(ZoneInfo(zone)), second_at_beginning=True)
        for _ in range(count):
            peer.get_next(datetime)

    return walk


def by_cronsim(expression: str, zone: str) -> Callable[[int], None]:
    expression = expression.replace("FRIL", "5L")

    def walk(count: int) -> None:
        peer: Iterator[datetime] = CronSim(expression, START.astimezone(ZoneInfo(zone)))
        for _ in range(count):
            next(peer)

    return walk


def parse(count: int) -> None:
    for number in range(count):
        parse_cron(f"{number % 60} {number // 60 % 24} * * MON-FRI")


def rate(walk: Callable[[int], None], count: int) -> float:
    """Per second of processor time."""
    began = time.process_time()
    walk(count)
    return count / (time.process_time() - began)


def measure() -> list[Row]:
    """All scenarios, each subject once a round."""
    rows = []
    for scenario, expression, zone in SCENARIOS:
        subjects = [
            ("jobmaster", version("jobmaster-runtime"), ours(cron(expression, zone)), NEXT),
            ("croniter", version("croniter"), by_croniter(expression, zone), NEXT_PEER),
            ("cronsim", version("cronsim"), by_cronsim(expression, zone), NEXT_PEER),
        ]
        rates: dict[str, list[float]] = {name: [] for name, *_ in subjects}
        for _ in range(ROUNDS):
            for name, _, walk, count in subjects:
                rates[name].append(rate(walk, count))
        made = [row(scenario, "-", name, n, rates[name], "ticks/s", which) for name, which, _, n in subjects]
        made[0].ratio_to_best_peer = round(made[0].value / max(peer.value for peer in made[1:]), 3)
        rows += made
    asked = [rate(stored(cron("0 9 * * MON-FRI", "Europe/Berlin")), NEXT) for _ in range(ROUNDS)]
    rows.append(row("stored_and_asked", "-", "jobmaster", NEXT, asked, "ticks/s"))
    rows.append(row("parse", "-", "jobmaster", PARSED, [rate(parse, PARSED) for _ in range(ROUNDS)], "expressions/s"))
    return rows


def main() -> int:
    rows = measure()
    print(report("recurrence", rows))
    missed = [r for r in rows if r.subject == "jobmaster" and r.scenario.startswith("next_plain") and r.value < TARGET]
    for each in missed:
        print(f"missed: {each.scenario} {each.value:,.0f} {each.unit}, target {TARGET:,}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
