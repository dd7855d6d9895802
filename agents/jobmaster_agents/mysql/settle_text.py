"""The statements that settle a batch: what `decisions.settled` says of success and failure, for all of it at once.

What ended goes to the outbox; or, where the master shares the database, straight into its history.
"""

from collections.abc import Sequence

from jobmaster.contracts.mysql_text import chunks, keyed, literal, often, sql
from jobmaster.contracts.values import HistoryTables, Settlement
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.outcome import RunOutcome
from jobmaster_agents.mysql.dialect import Dialect
from jobmaster_agents.mysql.ledger import BURIED_AGAIN
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import FENCE, LEASED, NOW_US

_GIVEN = (
    *("id", "token", "attempt", "started_us", "result", "outcome", "reason", "error", "progress", "progress_note"),
    *("place", "digest", "worker", "host", "finished_us", "detail"),
)
"""What an outcome brings for its job, and then what only its run and its record need."""
_OF_JOB = 10
_BARE = 5
"""Of these, what a success without error and progress brings for its job."""

_LIVE_AT_ONCE = 500
_INTO_STONES = "(id, seq, at_us, epoch, last_token, digest, moved, revoked, answer)"


def _job(store: Store, now: str, *, bare: bool = False) -> dict[str, str]:
    """What becomes of the columns of a job, by `decisions.settled`."""
    failed = f"(s.outcome = '{RunOutcome.FAILED}')"
    ended = {
        "agent": f"'{store.agent}'",
        "version": "j.version + 1",
        "suspect": "FALSE",
        "started_us": "NULL",
        "finished_us": now,
        "first_started_us": f"coalesce(j.first_started_us, least(s.started_us, {now}))",
    }
    if bare:
        return {**ended, "state": f"'{RunOutcome.SUCCEEDED}'", "reason": "NULL", "result": "s.result"}
    return {
        **ended,
        "state": "s.outcome",
        "reason": f"IF({failed}, coalesce(s.reason, 'exhausted'), NULL)",
        "attempts": f"j.attempts + {failed}",
        "result": f"IF({failed}, NULL, s.result)",
        "error": "coalesce(s.error, j.error)",
        "progress": "coalesce(s.progress, j.progress)",
        "progress_note": "IF(s.progress IS NULL, j.progress_note, s.progress_note)",
    }


def _values(job: dict[str, str]) -> str:
    return ", ".join(job.get(name, f"j.{name}") for name in JOB_FIELDS)


def _leased(store: Store) -> str:
    """What a token still leases, under lock, in order of id, given as `s`."""
    return (
        f" AS s STRAIGHT_JOIN {store.tables.job} AS j FORCE INDEX (PRIMARY) ON j.id = s.id "
        f"WHERE j.st = {LEASED} AND {FENCE} = s.token"
    )


class OutboxText:
    """Statements by way of the outbox. The first takes what its token still leases; the others go by what is there
    under the numbers of this batch, which nobody else has."""

    def __init__(self, store: Store) -> None:
        t = store.tables
        run = ", ".join({"job_id": "j.id", "attempt": "j.attempts + 1"}.get(name, f"s.{name}") for name in RUN_FIELDS)
        names = ", ".join((*(f"job_{name}" for name in JOB_FIELDS), *(f"run_{name}" for name in RUN_FIELDS)))
        self._into = (
            f"INSERT INTO {t.outbox} (seq, kind, at_us, digest, {names}) SELECT s.place, "
            f"IF(j.effects, 'effect', 'plain'), {NOW_US}, s.digest, {_values(_job(store, NOW_US))}, {run} FROM "
        ).encode()
        self._of = f"{_leased(store)} FOR UPDATE".encode()
        self._bury = (
            f"INSERT INTO {t.tombstone} {_INTO_STONES} "
            "SELECT job_id, seq, at_us, job_epoch, run_token, digest, FALSE, NULL, NULL "
            f"FROM {t.outbox} FORCE INDEX (PRIMARY) WHERE seq BETWEEN ? AND ?"
        )
        self._remove = (
            f"DELETE j FROM {t.outbox} AS o FORCE INDEX (PRIMARY) "
            f"STRAIGHT_JOIN {t.job} AS j FORCE INDEX (PRIMARY) ON j.id = o.job_id WHERE o.seq BETWEEN ? AND ?"
        )
        self._list = (
            f"SELECT job_id, seq, job_version, at_us FROM {t.outbox} FORCE INDEX (PRIMARY) WHERE seq BETWEEN ? AND ?"
        )

    def record(self, dialect: Dialect, items: Sequence[Settlement], first: int) -> list[bytes]:
        """Those that were leased go into the outbox, numbered from `first` on."""
        rows = [
            keyed(
                *(s.id, s.token, s.attempt, s.started_us, s.result, s.outcome, s.reason, s.error),
                *(s.progress, s.progress_note, place, s.digest(), s.worker, s.host, s.finished_us, s.detail),
            )
            for place, s in enumerate(items, first)
        ]
        return [self._into + dialect.given(_GIVEN, some) + self._of for some in chunks(rows)]

    def finish(self, first: int, last: int) -> list[bytes]:
        """Tombstones, the rows gone, and what they were, as `Remembered` has it."""
        return [
            sql(self._bury, first, last) + BURIED_AGAIN,
            *(sql(text, first, last) for text in (self._remove, self._list)),
        ]


class HistoryText:
    """Statements straight into a history in the same database, for a batch all of which is leased by its tokens,
    concerns nobody else, and is unknown to the master so far: it is written as it is, or not at all."""

    def __init__(self, store: Store, master: HistoryTables) -> None:
        t = store.tables
        into = f"INSERT INTO {master.history} ({', '.join(JOB_FIELDS)}) SELECT "
        self._bare, self._full = (
            f"{into}{_values(_job(store, NOW_US, bare=bare))} FROM ".encode() for bare in (True, False)
        )
        # The attempt is the run's, which is written by what the worker says.
        self._of = f"{_leased(store)} AND NOT j.effects AND j.attempts + 1 = s.attempt FOR UPDATE".encode()
        # Mostly there are none in that range; looking each of them up costs more.
        self._live = (
            f"SELECT id FROM {master.job} FORCE INDEX (PRIMARY) "
            f"WHERE id BETWEEN ? AND ? ORDER BY id LIMIT {_LIVE_AT_ONCE}"
        )
        self._run = f"INSERT INTO {master.run} ({', '.join(RUN_FIELDS)}) VALUES ".encode()
        self._bury = f"INSERT INTO {t.tombstone} {_INTO_STONES} VALUES ".encode()
        self._job = t.job

    def record(self, dialect: Dialect, items: Sequence[Settlement]) -> list[bytes]:
        """Those that were leased go into the history; the last statement gives what the master knows as unfinished
        from the first of them to the last, or all that may be asked of it at once."""
        if all(_is_bare(item) for item in items):
            into, columns = self._bare, _GIVEN[:_BARE]
            rows = [keyed(s.id, s.token, s.attempt, s.started_us, s.result) for s in items]
        else:
            into, columns = self._full, _GIVEN[:_OF_JOB]
            rows = [
                keyed(
                    *(s.id, s.token, s.attempt, s.started_us, s.result, s.outcome, s.reason, s.error),
                    *(s.progress, s.progress_note),
                )
                for s in items
            ]
        given = [into + dialect.given(columns, some) + self._of for some in chunks(rows)]
        return [*given, sql(self._live, items[0].id, items[-1].id)]

    def concerns(self, live: Sequence[tuple[str]], items: Sequence[Settlement]) -> bool:
        """Whether what the master knows as unfinished may be among them."""
        return len(live) == _LIVE_AT_ONCE or not {job_id for (job_id,) in live}.isdisjoint(s.id for s in items)

    def finish(self, dialect: Dialect, items: Sequence[Settlement], first: int, now_us: int) -> list[bytes]:
        """Runs, tombstones, the rows gone."""
        ids = [s.id for s in items]
        runs = [
            b"(%b,%d,%d,%b,%b,%d,%d,%b,%b,%b)"
            % (
                *(literal(s.id), s.token, s.attempt, often(s.worker), often(s.host), s.started_us, s.finished_us),
                *(often(s.outcome), literal(s.error), literal(s.detail)),
            )
            for s in items
        ]
        stones = [
            b"(%b,%d,%d,%d,%d,%d,0,NULL,NULL)" % (literal(s.id), seq, now_us, s.token >> 32, s.token, s.digest())
            for seq, s in enumerate(items, first)
        ]
        return [
            *(self._run + b",".join(some) for some in chunks(runs)),
            *(self._bury + b",".join(some) + BURIED_AGAIN for some in chunks(stones)),
            *dialect.removal(self._job, ids),
        ]


def _is_bare(item: Settlement) -> bool:
    return item.outcome is RunOutcome.SUCCEEDED and item.error is None and item.progress is None
