"""The statement that settles a batch: what `decisions.settled` says of success and failure, for all of it at once.

What ended goes to the outbox; or, where the master shares the database, straight into its history, by the rules of its
own move: a job that is live or ended there at an (epoch, version) as high stays as it is, an older live row goes, and a
run is written once. Ends that concern others go through the outbox even so.

`plain`, the statement takes for granted that none of these jobs has ended here before, as hardly any has, and fails
where one has: to be asked of every row first, and told that it was not, costs a third of a settle.
"""

from collections.abc import Sequence

from jobmaster.contracts.values import HistoryTables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.outcome import RunOutcome
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import CLOCK, FENCE, IS_LEASED, Tables, each

BARE = {
    "id": "uuid",
    "token": "bigint",
    "digest": "bigint",
    "worker": "text",
    "host": "text",
    "started_us": "bigint",
    "finished_us": "bigint",
    "result": "bytea",
}
"""What a success without progress, error or detail brings."""
FULL = {
    **BARE,
    "outcome": "text",
    "reason": "text",
    "error": "text",
    "detail": "bytea",
    "progress": "smallint",
    "progress_note": "text",
}

_ALIKE = frozenset({"token", "digest", "worker", "host", "started_us", "finished_us", "outcome"})
"""Columns that are sent once if they are the same in the whole batch, as `token` mostly is and `worker` always."""

_JOB = tuple(f"job_{name}" for name in JOB_FIELDS)
_RUN = tuple(f"run_{name}" for name in RUN_FIELDS)


REMEMBERED = ("seq", "job_version", "job_finished_us")

_BURIED_AGAIN = """ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch,
                last_token = excluded.last_token, digest = excluded.digest, at_us = excluded.at_us, moved = false,
                revoked = NULL, answer = NULL"""


def settle_text(
    store: Store,
    columns: dict[str, str],
    history: HistoryTables | None = None,
    also: Sequence[str] = (),
    *,
    plain: bool = False,
) -> str:
    """`$1` is the incarnation, the others are arrays of `columns`. Gives the ids that were leased by that token, and
    what of their records is said to be given `also`."""
    t = store.tables
    full = columns is FULL
    outcome = "s.outcome" if full else f"'{RunOutcome.SUCCEEDED}'"
    failed = f"({outcome} = '{RunOutcome.FAILED}')"
    now = "(SELECT now_us FROM clock)"
    job = {
        "state": outcome,
        "reason": f"CASE WHEN {failed} THEN coalesce(s.reason, 'exhausted') END" if full else "NULL::text",
        "agent": f"'{store.agent}'",
        "version": "j.version + 1",
        "attempts": f"j.attempts + {failed}::integer" if full else "j.attempts",
        "suspect": "false",
        "started_us": "NULL::bigint",
        "finished_us": now,
        "first_started_us": f"coalesce(j.first_started_us, least(s.started_us, {now}))",
        "result": f"CASE WHEN NOT {failed} THEN s.result END" if full else "s.result",
        "error": "coalesce(s.error, j.error)" if full else "j.error",
    }
    if full:
        job["progress"] = "coalesce(s.progress, j.progress)"
        job["progress_note"] = "CASE WHEN s.progress IS NULL THEN j.progress_note ELSE s.progress_note END"
    run = {
        "job_id": "j.id",
        "token": "s.token",
        "attempt": "j.attempts + 1",
        "worker": "s.worker",
        "host": "s.host",
        "started_us": "s.started_us",
        "finished_us": "s.finished_us",
        "outcome": outcome,
        "error": "s.error" if full else "NULL::text",
        "detail": "s.detail" if full else "NULL::bytea",
    }
    values = [f"{job.get(name, f'j.{name}')} AS job_{name}" for name in JOB_FIELDS]
    values += [f"{run[name]} AS run_{name}" for name in RUN_FIELDS]
    arrays = {
        name: f"${number}::text::{kind}[]" if kind in ("bigint", "uuid") else f"${number}::{kind}[]"
        for number, (name, kind) in enumerate(columns.items(), 2)
    }
    given = ", ".join(
        each(f"s.{name}", arrays[name]) + f" AS {name}" if name in _ALIKE else f"s.{name}" for name in columns
    )
    return f"""
        WITH {CLOCK}, given AS MATERIALIZED (
            SELECT {given} FROM unnest({", ".join(arrays.values())}) AS s ({", ".join(columns)})
        ), gone AS (
            DELETE FROM {t.job} AS j WHERE {IS_LEASED} AND j.ctid = ANY (ARRAY(
                SELECT held.at FROM given AS s CROSS JOIN {t.meta} AS m CROSS JOIN LATERAL (
                    SELECT j.ctid AS at FROM {t.job} AS j
                    WHERE j.id = s.id AND {IS_LEASED} AND {FENCE} = s.token FOR UPDATE
                ) AS held WHERE m.incarnation = $1
            )) RETURNING j.*
        ), ended AS MATERIALIZED (
            SELECT nextval('{t.outbox_seq}') AS seq, s.digest, {", ".join(values)}
            FROM gone AS j JOIN given AS s ON s.id = j.id
        ), {_recorded(t, None if history is None else "job_effects")}, {_written(history, plain) if history else ""}
        buried AS (
            INSERT INTO {t.tombstone} AS old (seq, id, epoch, last_token, digest, at_us)
            SELECT seq, job_id, job_epoch, run_token, digest, job_finished_us FROM ended
            {"" if plain else _BURIED_AGAIN}
        ), counted AS (
            INSERT INTO {t.count} (lane, leased) SELECT job_lane, -count(*) FROM ended GROUP BY job_lane
        )
        SELECT {", ".join(("job_id::text", *also))} FROM ended"""


def _recorded(t: Tables, where: str | None) -> str:
    """A part of WITH: records in the outbox."""
    return f"""recorded AS (
            INSERT INTO {t.outbox} (seq, kind, at_us, digest, {", ".join((*_JOB, *_RUN))})
            SELECT seq, CASE WHEN job_effects THEN 'effect' ELSE 'plain' END, job_finished_us, digest,
                {", ".join((*_JOB, *_RUN))}
            FROM ended{f" WHERE {where}" if where else ""}
        )"""


def _written(history: HistoryTables, plain: bool) -> str:
    """Parts of WITH: what concerns nobody else, in the history of a master that shares the database. Written in order
    of id, as all that the master writes."""
    h = history
    changes = ", ".join(f"{name} = excluded.{name}" for name in JOB_FIELDS if name != "id")
    newest = f"""ON CONFLICT (id) DO UPDATE SET {changes}
            WHERE (excluded.epoch, excluded.version) > (old.epoch, old.version)"""
    return f"""live AS MATERIALIZED (
            SELECT l.id, (l.epoch, l.version) >= (e.job_epoch, e.job_version) AS newer
            FROM ended AS e CROSS JOIN LATERAL (
                SELECT id, epoch, version FROM {h.job} WHERE id = e.job_id LIMIT 1
            ) AS l WHERE NOT e.job_effects
        ), written AS (
            INSERT INTO {h.history} AS old ({", ".join(JOB_FIELDS)})
            SELECT {", ".join(_JOB)} FROM ended
            WHERE NOT job_effects AND NOT EXISTS (SELECT 1 FROM live WHERE live.id = job_id AND newer)
            ORDER BY job_id {"" if plain else newest}
        ), ran AS (
            INSERT INTO {h.run} ({", ".join(RUN_FIELDS)})
            SELECT {", ".join(_RUN)} FROM ended WHERE NOT job_effects
            {"" if plain else "ON CONFLICT (job_id, token) DO NOTHING"}
        ), unlisted AS (
            DELETE FROM {h.job} WHERE id = ANY (ARRAY(SELECT id FROM live WHERE NOT newer))
        ),"""
