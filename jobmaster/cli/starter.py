"""`jobmaster init`: the two files an application starts from."""

from pathlib import Path
from typing import Annotated

import typer

from jobmaster.model.errors import ConfigurationError

APP = '''"""The jobs of this application.

jobmaster run       executes them, until Ctrl-C
python app.py       enqueues one and prints its result
"""

import asyncio
from dataclasses import dataclass

from jobmaster import ClusterBuilder, JobContext, JobHandler


@dataclass
class Welcome:
    user_id: str


class SendWelcome(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Welcome]) -> str:
        job.log.info("sending", user=job.data.user_id)
        return f"welcome, {job.data.user_id}"


cluster = ClusterBuilder.from_toml("jobmaster.toml").add_handlers(SendWelcome).build()


async def main() -> None:
    async with cluster.connect() as scheduler:
        job = await scheduler.once_now(SendWelcome, Welcome("user_123"))
        print(f"enqueued {job.id}, waiting for a worker")
        print(await job.result(timeout=30))


if __name__ == "__main__":
    asyncio.run(main())
'''

CONFIG = """# The settings of this cluster. Each may also be set in the builder or as an environment variable.
name = "app"
app = "app:cluster"

[master]
url = "sqlite:///jobmaster.db"

[[workers]]
name = "main"
slots = 10
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")] = Path(),
) -> None:
    """Write app.py and jobmaster.toml, which `jobmaster run` executes as they are."""
    files = {folder / "app.py": APP, folder / "jobmaster.toml": CONFIG}
    taken = [str(path) for path in files if path.exists()]
    if taken:
        raise ConfigurationError([f"{path} is there already; nothing was written" for path in taken])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
            typer.echo(f"wrote {path}")
    except OSError as error:
        raise ConfigurationError([f"{folder}: cannot be written to: {error.strerror}; name another folder"]) from error
    typer.echo("next: jobmaster run, and in another terminal: python app.py")
