"""AgentContract: all cases in one class to derive from."""

from jobmaster.testing.agents.amend import AmendCases
from jobmaster.testing.agents.claim import ClaimCases
from jobmaster.testing.agents.control import ControlCases
from jobmaster.testing.agents.events import EventCases
from jobmaster.testing.agents.hints import HintCases
from jobmaster.testing.agents.lease import LeaseCases
from jobmaster.testing.agents.ops import OpsCases
from jobmaster.testing.agents.promote import ParkCases, PromoteCases
from jobmaster.testing.agents.put import PutCases
from jobmaster.testing.agents.reading import ReadingCases
from jobmaster.testing.agents.reap import ReapCases
from jobmaster.testing.agents.reconcile import ReconcileCases
from jobmaster.testing.agents.release import ReleaseCases
from jobmaster.testing.agents.revoke import RevokeCases, WithdrawCases
from jobmaster.testing.agents.settle import SettleCases
from jobmaster.testing.agents.workers import WorkerCases


class AgentContract(
    PutCases,
    ClaimCases,
    LeaseCases,
    SettleCases,
    ReleaseCases,
    ReapCases,
    PromoteCases,
    ParkCases,
    RevokeCases,
    WithdrawCases,
    AmendCases,
    EventCases,
    ControlCases,
    ReadingCases,
    ReconcileCases,
    WorkerCases,
    HintCases,
    OpsCases,
):
    """What a transport must do. Supply the fixture `store`."""
