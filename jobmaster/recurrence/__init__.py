"""When a schedule is due: expressions, zones and DST rules, as pure computation without a clock or a store.

`Recurrence` is the one value type: what `cron(…)`, a timedelta and readable text become, what a master stores, and what
answers `next_after`. Instants are microseconds since 1970 in UTC.
"""

from jobmaster.recurrence.policy import Fold, Gap, Mark
from jobmaster.recurrence.value import Kind, Recurrence, Tick, cron

__all__ = ["Fold", "Gap", "Kind", "Mark", "Recurrence", "Tick", "cron"]
