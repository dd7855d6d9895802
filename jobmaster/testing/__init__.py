"""For tests: of applications (`cluster`, `ManualClock`), and of transports and master stores (the contract suites)."""

from jobmaster.testing.clock import ManualClock
from jobmaster.testing.kit import TestCluster, cluster

__all__ = ["ManualClock", "TestCluster", "cluster"]
