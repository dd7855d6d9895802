"""`kill -9` between the steps of a job on NATS: between a record and the message that follows from it, and between the
message that is published anew and the acknowledgement of the old one. What is missing is mended by who comes next."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import Nats
from tests.sizes import SIZES
from tests.system.faults.test_failpoints import KILLED, assert_nothing_was_lost, let_hand_offs_be_overdue, run_victim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FIRST = ["settle.after_commit", "parcel.published"]
STEPS = [*FIRST, "claim.after_commit", "settle.before_commit"] if SIZES.name == "full" else FIRST


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_between_two_steps_loses_nothing(
    step: str, tmp_path: Path, own_nats: Callable[..., Nats]
) -> None:
    server = own_nats()
    agent = json.dumps({"url": server.url, "monitor": server.monitor, "ack_wait": 2})

    first = run_victim(tmp_path, f"{step}:crash@2", FAULTS_AGENT=agent)
    assert first.returncode == KILLED, f"{step} was not reached: {first.returncode}\n{first.stderr}"
    let_hand_offs_be_overdue(tmp_path)
    second = run_victim(tmp_path, FAULTS_AGENT=agent)

    assert second.returncode == 0, second.stderr
    assert_nothing_was_lost(tmp_path)
