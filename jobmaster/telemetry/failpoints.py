"""Failpoints: named places where a test may crash, fail or delay a real process.

Off unless `JOBMASTER_FAILPOINTS` says otherwise, e.g. `settle.after_commit:crash@3,claim.after_commit:sleep=0.5`: at
the third hit of the first the process dies as by `kill -9`. With `JOBMASTER_FAILPOINT_LOG=FILE` every hit is appended
to a file, one name a line, written before the action so that a crash leaves its trace.
"""

import os
import time
from collections import Counter

from jobmaster.model.errors import Indeterminate

NAMES = (
    "enqueue.before_commit",
    "enqueue.after_commit",
    "claim.after_commit",
    "run.before_start",
    "run.handler_returned",
    "settle.before_commit",
    "settle.after_commit",
    "parcel.published",
    "release.after_commit",
    "extend.after_commit",
    "reap.after_commit",
    "rebase.after_commit",
    "adopt.before_commit",
    "move.before_commit",
    "move.after_commit",
    "handoff.dispatching",
    "handoff.put",
    "handoff.queued",
    "reconcile.before_naming",
    "reconcile.named",
    "schedule.tick",
    "operator.page_done",
    "operator.saved",
    "drain.closed",
    "drain.withdrawn",
    "relocation.sealing",
    "relocation.sealed",
    "relocation.batch",
    "relocation.copied",
    "relocation.verified",
    "migration.step",
)
"""Every failpoint there is; a test compares this list with the code and with the scenarios."""


class _Action:
    def __init__(self, text: str) -> None:
        name, _, what = text.partition(":")
        what, _, nth = what.partition("@")
        verb, _, argument = what.partition("=")
        if name not in NAMES or verb not in {"crash", "error", "sleep"}:
            raise ValueError(
                f"JOBMASTER_FAILPOINTS: {text!r}: expected NAME:crash|error|sleep=SECONDS[@N], NAME one of {NAMES}"
            )
        self.name, self.verb, self.seconds, self.nth = name, verb, float(argument or 0), int(nth or 0)


def _parse(text: str) -> dict[str, _Action]:
    return {action.name: action for action in (_Action(part) for part in text.split(",") if part)}


_actions = _parse(os.environ.get("JOBMASTER_FAILPOINTS", ""))
_log = os.environ.get("JOBMASTER_FAILPOINT_LOG")
_active = bool(_actions or _log)
_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Nothing in production; in a rehearsal, what `JOBMASTER_FAILPOINTS` asks for here. May block or not return."""
    if _active:
        _hit(name)


def _hit(name: str) -> None:
    assert name in NAMES, name
    _hits[name] += 1
    if _log:
        descriptor = os.open(_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{name}\n".encode())
        os.close(descriptor)
    action = _actions.get(name)
    if action is None or (action.nth and _hits[name] != action.nth):
        return
    if action.verb == "crash":
        os._exit(137)
    elif action.verb == "error":
        raise Indeterminate(f"failpoint {name}")
    else:
        time.sleep(action.seconds)
