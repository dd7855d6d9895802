"""`examples/schedules_app.py`: a profile that changes between two starts."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobmaster import ClusterBuilder
from tests.support import until
from tests.surface.shell import ROOT, Shell, interrupted

pytestmark = pytest.mark.slow

APP = ("--app", "schedules_app:cluster")


class Release:
    """The example, at one of its releases, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._shell = Shell(folder)
        self._folder = folder

    def __call__(self, number: int, *arguments: str) -> Any:
        done = self._shell(*arguments, *APP, "--json", **self.environment(number))
        assert done.stderr == "", done.stderr
        return json.loads(done.stdout)

    def environment(self, number: int) -> dict[str, str]:
        paths = [str(ROOT), str(ROOT / "agents"), str(ROOT / "examples")]
        return {"REPORTS_RELEASE": str(number), "REPORTS_FILE": "reports.db", "PYTHONPATH": ":".join(paths)}

    def schedules(self, number: int) -> Mapping[str, Any]:
        return {entry["key"]: entry for entry in self(number, "schedules", "list")}

    def start_and_stop(self, number: int) -> None:
        """Run it until its pulse was felt."""
        with self._shell.running("run", *APP, **self.environment(number)) as process:
            until(lambda: asyncio.run(self._beats()), within=60, what="a pulse", every=0.2)
            assert interrupted(process)[0] == 0

    async def _beats(self) -> bool:
        # Not by the command, whose start would take more time than what it is asked about.
        config = ClusterBuilder("reports").use_sqlite_for_master(self._folder / "reports.db").log(level="error")
        async with config.build().connect() as scheduler:
            return any(tick.job_state == "succeeded" for tick in await scheduler.occurrences("pulse"))

    def pulse(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self(number, "schedules", "show", "pulse")["occurrences"]
        return found


@pytest.mark.timeout(240)
def test_a_profile_that_changes_between_two_starts(tmp_path: Path) -> None:
    release = Release(tmp_path)
    release.start_and_stop(1)
    first = release.schedules(1)
    assert {key: entry["profile"] for key, entry in first.items()} == {
        "clean-up": "reports",
        "pulse": "pulse",
        "sales-report": "reports",
    }
    assert (first["sales-report"]["when"], first["sales-report"]["timezone"]) == ("0 9 * * MON-FRI", "Europe/Berlin")
    ticks = {tick["at"]: tick["job_id"] for tick in release.pulse(1) if tick["state"] == "planned"}
    assert len(set(ticks.values())) == len(ticks)

    shell = Shell(tmp_path)
    differing = shell("schedules", "diff", *APP, **release.environment(2))
    assert differing.returncode == 1
    assert differing.stdout.splitlines() == [
        "+ board-report",
        "~ sales-report",
        "- clean-up  ends after retire_after",
    ]
    assert shell("schedules", "diff", *APP, **release.environment(1)).stdout == "no difference\n"

    release.start_and_stop(2)
    second = release.schedules(2)
    assert second["sales-report"]["when"] == "0 8 * * MON-FRI"
    assert second["sales-report"]["created_at"] == first["sales-report"]["created_at"]
    assert second["clean-up"]["retires_at"] is not None
    assert second["clean-up"]["state"] == "active"
    assert second["board-report"]["misfire"] == "skip"
    assert second["pulse"]["version"] == first["pulse"]["version"]

    # Rolled back: what was dropped is as it was, what was added leaves.
    release.start_and_stop(1)
    third = release.schedules(1)
    assert third["clean-up"]["retires_at"] is None
    assert third["board-report"]["retires_at"] is not None
    assert third["sales-report"]["when"] == "0 9 * * MON-FRI"
