"""`jobmaster schedules …`: what an expression means and when it occurs. `next` and `explain` need no cluster."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from jobmaster.cli.jobs import ask, instant
from jobmaster.cli.render import print_json, terminal
from jobmaster.cli.target import App, Config, File, Json, Name

if TYPE_CHECKING:
    from jobmaster.recurrence import Recurrence, Tick
    from jobmaster.schedule_views import TickPreview

MOST_SHOWN = 100_000
MARKS = {
    "gap": "moved: the clocks leave its local time out",
    "fold-1": "first pass of a repeated hour",
    "fold-2": "second pass of a repeated hour",
}

EXAMPLES = "'0 9 * * MON-FRI', '@daily', or 'every weekday at 18:00'"

Expression = Annotated[str, typer.Argument(metavar="EXPR", help=f"{EXAMPLES}.")]
Timezone = Annotated[str | None, typer.Option("--timezone", help="IANA zone; default: the text's own, else UTC.")]
Gap = Annotated[str | None, typer.Option("--gap", help="shift or skip; default: by the kind of expression.")]
Fold = Annotated[str | None, typer.Option("--fold", help="first, last or both; default: by the kind of expression.")]

app = typer.Typer(help="Look at schedules, and at what an expression means.", no_args_is_help=True)


@app.command("next")
def next_ticks(
    expression: Annotated[str | None, typer.Argument(metavar="EXPR", help=f"{EXAMPLES}; or a stored --key.")] = None,
    timezone: Timezone = None,
    key: Annotated[str | None, typer.Option("--key", help="A schedule of a cluster, in place of EXPR.")] = None,
    after: Annotated[str | None, typer.Option(help="ISO instant with an offset; default: now.")] = None,
    count: Annotated[int, typer.Option(min=1, max=MOST_SHOWN)] = 10,
    inclusive: Annotated[bool, typer.Option("--inclusive", help="The instant itself may be the first.")] = False,
    anchor: Annotated[
        str | None, typer.Option(help="From where an interval counts, an ISO instant; default: --after.")
    ] = None,
    gap: Gap = None,
    fold: Fold = None,
    app: App = None,
    config: Config = None,
    file: File = None,
    cluster: Name = None,
    as_json: Json = False,
) -> None:
    """The next occurrences of an expression, with their offsets and with what a change of the clocks does to them."""
    from jobmaster.recurrence import Recurrence
    from jobmaster.recurrence.zones import to_us

    if (expression is None) is (key is None):
        raise typer.BadParameter("give an expression, or the --key of a schedule")
    ticks: Sequence[Tick | TickPreview]
    if key is not None:
        stored = key
        ticks = ask((app, config, file, cluster), lambda scheduler: scheduler.next_ticks(stored, count))
        print_json([{"at": tick.at, "mark": tick.mark} for tick in ticks]) if as_json else print_ticks(ticks)
        return
    start_us = to_us(instant(after, "--after") or datetime.now(UTC).replace(microsecond=0))
    anchored_at = instant(anchor, "--anchor")
    assert expression is not None
    recurrence = Recurrence.of(expression, timezone, gap=gap, fold=fold)
    recurrence = recurrence.anchored(start_us if anchored_at is None else to_us(anchored_at))
    ticks = recurrence.preview(start_us, count, inclusive=inclusive)
    if as_json:
        print_json([{"at": tick.at, "mark": tick.mark} for tick in ticks])
    else:
        print_ticks(ticks)


def print_ticks(ticks: "Sequence[Tick | TickPreview]") -> None:
    """One line each."""
    for tick in ticks:
        note = f"  {tick.mark}: {MARKS[tick.mark]}" if tick.mark else ""
        typer.echo(f"{tick.at.isoformat()}  {tick.at:%a}{note}")
    if not ticks:
        typer.echo("no occurrence any more")


@app.command()
def explain(
    expression: Expression,
    timezone: Timezone = None,
    gap: Gap = None,
    fold: Fold = None,
    as_json: Json = False,
) -> None:
    """An expression in plain words, and what it does where the clocks change."""
    from jobmaster.recurrence import Recurrence

    print_words(Recurrence.of(expression, timezone, gap=gap, fold=fold), as_json=as_json)


def print_words(recurrence: "Recurrence", *, as_json: bool) -> None:
    """What a recurrence means."""
    from jobmaster.recurrence.words import describe, describe_dst

    words, clocks = describe(recurrence), describe_dst(recurrence)
    if as_json:
        rule = recurrence.rule
        gap, fold = (None, None) if rule is None else recurrence.dst()
        print_json(
            {
                "kind": recurrence.kind,
                "expression": recurrence.expression,
                "timezone": recurrence.timezone,
                "words": words,
                "gap": gap,
                "fold": fold,
            }
        )
        return
    console = terminal()
    console.print(words, markup=False)
    if recurrence.timezone != "UTC":
        console.print(f"where the clocks change: {clocks}", markup=False)
