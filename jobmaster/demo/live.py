"""The live display: counts per state, jobs per second, time left, and the films' progress bars."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobmaster.model.states import TERMINAL, JobState
from jobmaster.views import JobInfo

WINDOW_SECONDS = 5.0
PLAIN_EVERY_SECONDS = 2.0


@dataclass
class Snapshot:
    """What there is to see at one moment."""

    states: Counter[str]
    films: list[JobInfo]
    total: int
    """File jobs of the batch."""
    ended: int
    """Those of them that have ended."""
    ticks: int


@dataclass
class Rate:
    """Jobs per second over the last seconds."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, ended: int) -> float:
        """Note how many have ended by now; jobs per second over the window."""
        now = time.monotonic()
        self.seen.append((now, ended))
        while now - self.seen[0][0] > WINDOW_SECONDS:
            self.seen.popleft()
        before, count = self.seen[0]
        return (ended - count) / (now - before) if now > before else 0.0


def time_left(snapshot: Snapshot, rate: float) -> str:
    """In words; empty where it can't be known."""
    left = snapshot.total - snapshot.ended
    if left <= 0:
        return "done"
    return f"{left / rate:.0f} s left" if rate > 0.5 else ""


def line(snapshot: Snapshot, rate: float) -> str:
    """One line for where there is no terminal."""
    states = ", ".join(f"{snapshot.states[state]:,} {state}" for state in JobState if snapshot.states[state])
    return (
        f"files {snapshot.ended:,}/{snapshot.total:,} | {states} | {rate:,.0f} jobs/s | "
        f"{time_left(snapshot, rate) or 'working'} | {snapshot.ticks} ticks"
    )


def panel(snapshot: Snapshot, rate: float) -> RenderableType:
    """The whole display."""
    states = Table.grid(padding=(0, 2))
    for state in JobState:
        if snapshot.states[state]:
            style = {"failed": "red", "succeeded": "green", "running": "cyan"}.get(state, "")
            states.add_row(Text(state, style=style), Text(f"{snapshot.states[state]:,}", justify="right"))
    films = Table.grid(padding=(0, 2))
    for film in sorted(snapshot.films, key=lambda film: (film.priority, film.id)):
        percent = 100 if film.state in TERMINAL else film.progress or 0
        films.add_row(
            film.priority.name,
            film.title or film.id,
            ProgressBar(total=100, completed=percent, width=30),
            f"{percent:3} %",
            film.state,
        )
    head = Text(
        f"files {snapshot.ended:,} of {snapshot.total:,}   {rate:,.0f} jobs/s   {time_left(snapshot, rate)}   "
        f"{snapshot.ticks} ticks of the schedule",
        style="bold",
    )
    bar = ProgressBar(total=max(snapshot.total, 1), completed=snapshot.ended, width=60)
    return Group(head, bar, Text(), states, Text(), films)


def plain(console: Console) -> bool:
    """Whether to print lines instead of a display."""
    return not console.is_terminal
