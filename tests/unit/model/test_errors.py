"""The error tree: what a message tells, that it stays short and inert, and that errors survive pickle and copy."""

import builtins
import copy
import inspect
import math
import pickle
from datetime import timedelta

import pytest

from jobmaster.model import errors
from jobmaster.model.errors import (
    AgentUnreachable,
    ConfigurationError,
    DataInvalid,
    DefinitionInvalid,
    ExpressionInvalid,
    HandlerSignal,
    HandlerUnknown,
    IllegalMove,
    Indeterminate,
    JobCancelled,
    JobConflict,
    JobFailed,
    JobMasterError,
    JobNotFound,
    KeyInvalid,
    LeaseLost,
    MasterSealed,
    MasterUnavailable,
    NameInvalid,
    OperationNotFound,
    OptionInvalid,
    Problem,
    Refused,
    Reject,
    ResultTimeout,
    RetryAfter,
    ScheduleNotFound,
    SchemaOutdated,
    Snooze,
    StoreError,
    UnsafeStore,
    WorkerNotFound,
    quoted,
)

EXAMPLES: list[tuple[Exception, list[str]]] = [
    (ConfigurationError(["agent 'a' has no url"]), ["agent 'a' has no url"]),
    (ConfigurationError(["first", "second"]), ["2 faults", "1. first", "2. second"]),
    (
        NameInvalid("agent", "Transport-1", "lower case", "transport-1"),
        ["agent 'Transport-1' is not allowed", "'transport-1'?"],
    ),
    (KeyInvalid("unique key", "a\x00b", "no control characters"), ["unique key 'a\\x00b'", "no control"]),
    (DataInvalid([Problem("$.user", "is missing")]), ["data", "$.user", "is missing"]),
    (DataInvalid([Problem("$.a", "x"), Problem("$.b", "y")], "result"), ["result", "2 problems", "$.a: x", "$.b: y"]),
    (OptionInvalid("max_attempts", 0, "1 to 1,000"), ["max_attempts=0", "1 to 1,000"]),
    (
        HandlerUnknown("send-welcom", ["send-welcome"]),
        ["'send-welcom' is not registered", "did you mean 'send-welcome'?", "add_handlers"],
    ),
    (HandlerUnknown("x", (), "add_handlers(X)"), ["'x'", "add_handlers(X)"]),
    (DefinitionInvalid("handler SendWelcome", "has no execute", "add it"), ["SendWelcome", "has no execute", "add it"]),
    (IllegalMove("id-1", "succeeded", "running", ["held"]), ["id-1", "from succeeded to running", "held"]),
    (
        ExpressionInvalid("0 25 * * *", "25", "is out of range", "hours from 0 to 23", 2),
        ["'0 25 * * *', at character 3: '25' is out of range", "expected hours from 0 to 23"],
    ),
    (JobNotFound("id-1", "its agent a is gone"), ["id-1", "its agent a is gone"]),
    (OperationNotFound("0198"), ["'0198'", "jobmaster operations list"]),
    (WorkerNotFound("clerc-1", ["clerk-1"]), ["'clerc-1'", "did you mean 'clerk-1'?"]),
    (ScheduleNotFound("nightly"), ["'nightly'", "jobmaster schedules list"]),
    (JobConflict("id-1", "exists with other data", "use another id"), ["id-1", "other data", "use another id"]),
    (JobFailed("id-1", "exhausted", "ValueError", "no", "Traceback"), ["id-1", "exhausted", "ValueError: no"]),
    (JobFailed("id-1", "expired"), ["id-1", "(expired)"]),
    (JobCancelled("id-1"), ["id-1", "cancelled"]),
    (ResultTimeout("id-1", 2.5), ["id-1", "2.5 s"]),
    (LeaseLost("id-1", 7), ["id-1", "7"]),
    (StoreError("odd"), ["odd"]),
    (Refused("no"), ["no"]),
    (Indeterminate("connection lost", "id-1", "a"), ["id-1", "agent 'a'", "connection lost", "same id"]),
    (Indeterminate("connection lost"), ["connection lost", "may have been applied"]),
    (MasterUnavailable("timed out", "start it"), ["master", "timed out", "start it"]),
    (MasterSealed("it is moved to db-2"), ["master", "moved to db-2"]),
    (AgentUnreachable("a", "timed out"), ["agent 'a'", "timed out"]),
    (
        UnsafeStore("a.db", "synchronous", "OFF", "set it to FULL", "jobs may be lost"),
        ["OFF", "FULL", "jobs may be lost"],
    ),
    (SchemaOutdated("a.db", 1, 2), ["a.db", "1", "2", "jobmaster migrate"]),
    (RetryAfter(90), ["0:01:30"]),
    (Snooze(timedelta(seconds=1), "not open yet"), ["0:00:01", "not open yet"]),
    (Reject("no such user"), ["no such user"]),
    (Reject(), ["rejected"]),
]


@pytest.mark.parametrize(("error", "pieces"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_a_message_names_the_thing_the_value_and_the_remedy(error: Exception, pieces: list[str]) -> None:
    for piece in pieces:
        assert piece in str(error)


@pytest.mark.parametrize("error", [error for error, _ in EXAMPLES], ids=lambda error: type(error).__name__)
def test_errors_survive_pickle_and_copy(error: Exception) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_every_error_has_an_example_here() -> None:
    defined = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == errors.__name__ and not cls.__name__.startswith("_")
    }
    assert defined - {type(error) for error, _ in EXAMPLES} == {JobMasterError, HandlerSignal}


def test_no_name_hides_a_builtin() -> None:
    assert not [name for name in vars(errors) if hasattr(builtins, name) and not name.startswith("__")]


def test_the_tree_separates_refused_from_indeterminate() -> None:
    for refused in (MasterUnavailable, AgentUnreachable, UnsafeStore, SchemaOutdated):
        assert issubclass(refused, Refused)
    assert not issubclass(Indeterminate, Refused)
    assert not issubclass(HandlerSignal, JobMasterError)


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, -math.inf, 1e300, True, "5", None, timedelta(seconds=-1)])
def test_a_signal_refuses_a_delay_without_meaning(delay: object) -> None:
    with pytest.raises(OptionInvalid, match=r"Snooze\(delay\)"):
        Snooze(delay)  # type: ignore[arg-type]  # wrong on purpose


def test_a_signal_gives_its_delay_in_whole_microseconds() -> None:
    assert RetryAfter(1.5).delay_us == 1_500_000
    assert Snooze(0).delay_us == 0
    assert RetryAfter(timedelta(days=36_525)).delay_us == 36_525 * 86_400 * 1_000_000


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"\xff" * 1_000_000, ["y" * 1_000_000], "\x1b[2J\u202e\ud800\n"])
def test_a_quoted_value_is_short_printable_and_encodable(value: object) -> None:
    text = quoted(value)
    assert len(text) < 400
    assert text.isprintable()
    text.encode()


def test_a_quoted_value_whose_repr_fails_is_named_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert quoted(Broken()) == "<Broken whose repr fails>"
