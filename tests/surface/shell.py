"""The command as users run it: real processes in a folder of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100


class Shell:
    """Runs commands in one folder, in an environment without settings of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("JOBMASTER_")}
        return {**clean, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")]), **extra}

    def __call__(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """`jobmaster …` to its end. What it prints on stderr is never a traceback."""
        done = self.python("-m", "jobmaster", *arguments, **environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def python(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(environment),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def sh(self, program: str) -> subprocess.CompletedProcess[str]:
        """A line of shell."""
        return subprocess.run(
            program,
            shell=True,
            cwd=self.folder,
            env=self.environment({}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    @contextmanager
    def running(
        self, *arguments: str, ready: str = "is running", **environment: str
    ) -> Iterator[subprocess.Popen[str]]:
        """`jobmaster …` as a process that stays, once it has said that it is `ready`; killed if it is still there."""
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "jobmaster", *arguments],
            cwd=self.folder,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if ready in line:
                    break
            else:
                raise AssertionError(f"jobmaster {' '.join(arguments)} ended with {process.wait()} before it ran")
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.stdout.close()
            process.wait()

    def snapshot(self) -> dict[str, bytes]:
        """Every file of the folder with its content."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and the rest of the output after one Ctrl-C."""
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    return process.wait(SECONDS), rest
