"""What the Postgres benchmark must reach, and whether it did."""

from dataclasses import dataclass

from benchmarks.rows import Row, Verdict

STANDALONE = "jobmaster-standalone"
SPLIT = "jobmaster-split"


@dataclass(frozen=True)
class Target:
    """`of` says what is bounded: the ratio to the floor or to the best peer (above 1 is faster, whatever the unit), or
    the value itself."""

    scenario: str
    of: str
    least: float | None = None
    most: float | None = None
    subject: str = STANDALONE


TARGETS = (
    Target("drain", "floor", least=0.45),
    Target("drain", "best peer", least=2.0),
    Target("drain", "floor", least=0.25, subject=SPLIT),
    Target("drain", "best peer", least=1.2, subject=SPLIT),
    Target("enqueue_bulk", "floor", least=0.5),
    Target("enqueue_single", "floor", least=1 / 1.5),
    Target("latency_idle", "floor", least=1 / 1.5),
    Target("latency_idle", "best peer", least=1.0),
    Target("growth", "value", least=0.85),
    Target("held_xmin", "value", least=0.5),
    Target("two_workers", "value", least=1.3),
    Target("two_workers_deadlocks", "value", most=0.0),
)

SATURATED = 190.0
"""Percent of a core at which server and clients leave nothing for a second worker on two cores."""


def verdicts(rows: list[Row]) -> list[Verdict]:
    """One for each target and row it is about; of a target without a row, nothing."""
    found = []
    saturated = any(each.scenario == "two_workers_cpu" and each.value >= SATURATED for each in rows)
    for target in TARGETS:
        for each in rows:
            if (each.scenario, each.subject) != (target.scenario, target.subject):
                continue
            ratios = {"floor": each.ratio_to_floor, "best peer": each.ratio_to_best_peer, "value": each.value}
            value = ratios[target.of]
            if value is None:
                continue
            met = value >= target.least if target.least is not None else value <= (target.most or 0.0)
            bound = f"at least {target.least:.2f}" if target.least is not None else f"at most {target.most:g}"
            what = "" if target.of == "value" else f" x {target.of}"
            words = f"{target.scenario} of {each.subject}, n = {each.n:,}: {value:.2f}{what}, target {bound}"
            if target.scenario == "two_workers" and not met and saturated:
                met, words = True, f"{words}, or both cores taken: they are (two_workers_cpu)"
            found.append(Verdict(words, met))
    return found
