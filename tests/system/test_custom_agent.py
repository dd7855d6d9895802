"""The example transport, installed from its own package beside JobMaster in a fresh environment, keeps the contract and
runs a job, and the core knows nothing of it."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_agent"

PROGRAM = """
import asyncio, pathlib, sys
import jobmaster
from jobmaster import ClusterBuilder, JobContext, JobHandler

class Greet(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return f"hello, {job.data['name']}"

folder = pathlib.Path(sys.argv[1])
config = ClusterBuilder("example").add_handlers(Greet)
config.use_master(f"sqlite:///{folder / 'master.db'}")
config.add_agent("transport-1").use_agent(f"journal://{folder / 'journal'}")
config.add_worker().agent("transport-1")

async def main() -> None:
    async with config.build().run() as runtime:
        job = await runtime.scheduler.once_now(Greet, {"name": "journal"})
        print(await job.result(timeout=30))

asyncio.run(main())
print(jobmaster.__file__)
"""


INI = """
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


class Environment:
    """A fresh virtual environment that borrows the libraries of the running one, so that nothing is downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        libraries = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "JOBMASTER_"))
        }
        self._environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(libraries))

    def run(self, *arguments: str | Path, python: str | Path | None = None, seconds: float = 120) -> str:
        done = subprocess.run(
            [str(python or self.python), *map(str, arguments)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(self, package: Path) -> None:
        # From a copy, as a build may leave files behind; without isolation, as that would download the build backend.
        source = self.folder / package.name
        shutil.copytree(
            package, source, ignore=lambda _, names: [name for name in names if name in UNNEEDED or name[0] == "."]
        )
        pip = ("-m", "pip", "--python", self.python, "install", "--quiet", "--no-deps", "--no-build-isolation")
        self.run(*pip, "--no-index", "--disable-pip-version-check", source, python=sys.executable)


UNNEEDED = {"build", "dist", "tests", "benchmarks", "examples", "__pycache__"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("fresh"))
    environment.install(ROOT)
    environment.install(EXAMPLE)
    return environment


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_runs_through_the_scheme_of_an_installed_package(environment: Environment, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    answer, imported = environment.run(program, tmp_path).splitlines()

    assert answer == "hello, journal"
    assert Path(imported).is_relative_to(environment.folder)
    [journal] = (tmp_path / "journal").iterdir()
    assert b'"settle"' in journal.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_installed_transport_keeps_the_contract(environment: Environment, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "test_journal.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(INI)

    report = environment.run("-m", "pytest", "-v", "-p", "no:cacheprovider", tmp_path, seconds=200)

    for case in ("restart_store", "token_strictly_increases_across_restart", "control_survives_a_restart"):
        assert f"test_{case} PASSED" in report


def test_the_example_is_small() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in EXAMPLE.glob("jobmaster_*.py"))

    assert lines <= 200
