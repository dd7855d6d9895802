"""Settings: every value that configures a cluster, the same from the builder, from TOML and from the environment.

Where one setting comes from several places the nearest to the code wins: a call on the builder, then the environment
(`JOBMASTER_…`), then the TOML file, then the default. Tables are merged key by key; a list of workers replaces another
one whole, and `JOBMASTER_WORKERS__0__SLOTS` is one field of the first worker, wherever that was listed.
"""

from jobmaster.settings.models import (
    AgentSettings,
    ClusterSettings,
    Defaults,
    Limits,
    LogSettings,
    RetrySettings,
    StoreSettings,
    Timings,
    WorkerMode,
    WorkerSettings,
)
from jobmaster.settings.sources import load_settings
from jobmaster.settings.table import settings_table

__all__ = [
    "AgentSettings",
    "ClusterSettings",
    "Defaults",
    "Limits",
    "LogSettings",
    "RetrySettings",
    "StoreSettings",
    "Timings",
    "WorkerMode",
    "WorkerSettings",
    "load_settings",
    "settings_table",
]
