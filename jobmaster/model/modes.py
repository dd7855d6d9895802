"""Worker modes: what a process takes part in, beside running jobs."""

from enum import StrEnum


class WorkerMode(StrEnum):
    """What a process with this worker takes part in. Duties of its agent run in every mode."""

    FULL = "full"
    """Runs jobs, and the cluster's duties."""
    EXECUTION = "execution"
    """Runs jobs only."""
    COORDINATOR = "coordinator"
    """Runs the cluster's duties only: there is no worker."""
    DRAIN = "drain"
    """Runs jobs only, until none of its lanes has any that is ready or running, and then goes."""
