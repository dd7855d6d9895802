"""Which cluster a command is about."""

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from jobmaster.builder import ClusterBuilder
from jobmaster.cluster import Cluster
from jobmaster.model.errors import ConfigurationError

App = Annotated[
    str | None, typer.Option("--app", help="Where the cluster is built: MODULE:NAME, e.g. shop.jobs:cluster.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default: jobmaster.toml, if there.")]
File = Annotated[Path | None, typer.Option("--file", help="A standalone cluster's SQLite file.")]
Name = Annotated[str | None, typer.Option("--cluster", help="The cluster's name; with --file only, default: demo.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

CONFIG_FILE = "jobmaster.toml"


def find_cluster(app: str | None, config: Path | None, file: Path | None, name: str | None) -> Cluster:
    """The cluster the options name; without options that of `jobmaster.toml` here, with the `app` it names.

    Raises `ConfigurationError` with every fault."""
    if file is not None:
        if not file.is_file():
            raise ConfigurationError([f"--file {str(file)!r}: no such file; a cluster makes it when it first runs"])
        return ClusterBuilder(name or "demo").use_master(f"sqlite:///{file}").build()
    app = app or os.environ.get("JOBMASTER_APP")
    config = config or Path(os.environ.get("JOBMASTER_CONFIG", CONFIG_FILE))
    if app is None and config.is_file():
        app = _named_app(config)
        if app is None:
            return ClusterBuilder.from_toml(config).build()
    if app is None:
        raise ConfigurationError(
            [f"no cluster given: use --app MODULE:NAME or --file FILE, or run this beside a {CONFIG_FILE}"]
        )
    return load_app(app)


def _named_app(config: Path) -> str | None:
    try:
        named = tomllib.loads(config.read_text()).get("app")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{config}: {error}"]) from error
    return named if isinstance(named, str) else None


def load_app(reference: str) -> Cluster:
    """Import `module:name`; the name may be a `Cluster`, a `ClusterBuilder` or a function giving either."""
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError([f"--app {reference!r}: expected MODULE:NAME, e.g. shop.jobs:cluster"])
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ConfigurationError(
            [f"--app {reference!r}: there is no module {module_name!r} in {os.getcwd()} or on the Python path"]
        ) from error
    found = getattr(module, attribute, None)
    if callable(found) and not isinstance(found, (Cluster, ClusterBuilder)):
        found = found()
    if isinstance(found, ClusterBuilder):
        found = found.build()
    if not isinstance(found, Cluster):
        raise ConfigurationError(
            [f"--app {reference!r}: {attribute!r} is {type(found).__name__}; expected a Cluster or a ClusterBuilder"]
        )
    return found
