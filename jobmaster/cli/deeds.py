"""What commands that change many things share: conditions from `--where`, counting first, asking, and waiting."""

import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobmaster.cli.eventloop import StopSignals, run_async
from jobmaster.cli.render import inert, print_json
from jobmaster.cli.target import find_cluster
from jobmaster.model.errors import OptionInvalid
from jobmaster.model.portable import decode

if TYPE_CHECKING:
    from jobmaster.bulk import OperationInfo
    from jobmaster.scheduler import Scheduler

Target = tuple[str | None, Path | None, Path | None, str | None]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="state, handler, lane, agent, schedule, tag, reason, fingerprint, since, until (ISO instants, or an age "
        "such as 2h), metadata.NAME (JSON). May be given several times; a job has to meet all. Values of one key "
        "separated by commas are alternatives for state, reason and fingerprint.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Everything = Annotated[bool, typer.Option("--all", help="All jobs: no condition is meant.")]
Wait = Annotated[bool, typer.Option(help="Stay until it is done, and help.")]

LISTS = frozenset({"state", "reason", "fingerprint"})
KEYS = ("state", "handler", "lane", "agent", "schedule", "tag", "reason", "fingerprint", "since", "until")
AGES = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
POLL_SECONDS = 0.2
SHOWN_EVERY = 5


def conditions(given: Sequence[str] | None) -> dict[str, Any]:
    """What `--where` says, as `Bulk` takes it. Raises `OptionInvalid`."""
    found: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for word in [word for text in given or () for word in _words(text)]:
        key, equals, value = word.partition("=")
        if key.startswith("metadata.") and equals:
            metadata[key.removeprefix("metadata.")] = _json(value)
        elif key not in KEYS or not equals or not value:
            raise OptionInvalid("--where", word, f"KEY=VALUE with one of {', '.join(KEYS)}, metadata.NAME")
        elif key in found:
            raise OptionInvalid("--where", word, f"{key} once; a job has to meet all conditions")
        elif key in LISTS:
            found[key] = value.split(",")
        else:
            found[key] = _instant(key, value) if key in ("since", "until") else value
    return {**found, "metadata": metadata} if metadata else found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise OptionInvalid("--where", text, f"KEY=VALUE ({error})") from None


def _json(value: str) -> Any:
    try:
        return decode(value.encode())
    except Exception:
        return value


def _instant(key: str, value: str) -> Any:
    from datetime import UTC, datetime

    from jobmaster.cli.jobs import instant

    number = value.rstrip("smindh")
    if number.isdecimal() and value[len(number) :] in AGES:
        return datetime.now(UTC) - timedelta(seconds=int(number) * AGES[value[len(number) :]])
    return instant(value, f"--where {key}")


def carry_out(
    target: Target,
    kind: str,
    where: Mapping[str, Any],
    begin: "Callable[[Scheduler], Awaitable[OperationInfo]]",
    *,
    yes: bool,
    wait: bool,
    as_json: bool,
    verb: str,
) -> None:
    """Count what is meant, ask, begin, and stay until it is done. Exit code 1 if it was stopped or failed."""
    run_async(_carry_out(target, kind, where, begin, yes=yes, wait=wait, as_json=as_json, verb=verb))


async def _carry_out(
    target: Target,
    kind: str,
    where: Mapping[str, Any],
    begin: "Callable[[Scheduler], Awaitable[OperationInfo]]",
    *,
    yes: bool,
    wait: bool,
    as_json: bool,
    verb: str,
) -> None:
    cluster = find_cluster(*target)
    async with cluster.connect() as scheduler:
        if not yes:
            found = await scheduler.bulk.count(kind, **where)
            more = "more than " if found.capped else ""
            away = f" (agents {', '.join(found.unreachable)} did not answer)" if found.unreachable else ""
            typer.confirm(f"{verb} {more}{found.count:,} jobs{away}?", abort=True, err=True)
        operation = await begin(scheduler)
    if not wait:
        show(operation, as_json)
        return
    with StopSignals() as signals:
        # No other process may coordinate at the moment.
        async with cluster.without_workers().run() as runtime:
            bulk, said = runtime.scheduler.bulk, 0
            while operation.state == "running" and not signals.asked.is_set():
                operation = await bulk.get(operation.id)
                if not as_json and operation.changed // 1_000 > said:
                    said = operation.changed // 1_000
                    typer.echo(f"{operation.changed:,} done", err=True)
                await runtime.clock.sleep(POLL_SECONDS / 4)
    show(operation, as_json)
    if operation.state not in ("done", "running"):
        raise typer.Exit(1)


def show(operation: "OperationInfo", as_json: bool) -> None:
    """How far an operation is."""
    if as_json:
        print_json(operation)
        return
    total = "" if operation.total is None else f" of {'more than ' if operation.capped else ''}{operation.total:,}"
    skipped = f", {operation.skipped:,} were in another state by then" if operation.skipped else ""
    note = f": {inert(operation.note)}" if operation.note else ""
    typer.echo(
        f"operation {operation.id} ({operation.kind}) is {operation.state}: {operation.changed:,}{total} jobs changed"
        f"{skipped}{note}"
    )
