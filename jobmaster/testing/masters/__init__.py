"""The specification of a master store, as tests.

A store passes by supplying one fixture:

    class TestMyMaster(MasterContract):
        @pytest_asyncio.fixture
        async def store(self, tmp_path) -> AsyncIterator[MasterHarness]: ...
"""

from jobmaster.testing.masters.handoff import HandOffCases
from jobmaster.testing.masters.harness import MasterHarness as MasterHarness
from jobmaster.testing.masters.history import HistoryCases
from jobmaster.testing.masters.intake import IntakeCases, MoveCases
from jobmaster.testing.masters.operations import OperationCases
from jobmaster.testing.masters.planning import PlanningCases
from jobmaster.testing.masters.profiles import ProfileCases
from jobmaster.testing.masters.schedules import ScheduleCases
from jobmaster.testing.masters.topology import TopologyCases


class MasterContract(
    HandOffCases,
    IntakeCases,
    MoveCases,
    HistoryCases,
    TopologyCases,
    ScheduleCases,
    ProfileCases,
    PlanningCases,
    OperationCases,
):
    """Every case, to be run unchanged."""
