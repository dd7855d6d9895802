"""Which cluster a command is about."""

import importlib
import os
import sys
import tomllib
from collections.abc import Callable, Coroutine
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from jobmaster.contracts.namespace import cluster_of, table_prefix
from jobmaster.model.errors import ConfigurationError, JobMasterError, quoted

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster

App = Annotated[
    str | None, typer.Option("--app", help="Where the cluster is built: MODULE:NAME, e.g. shop.jobs:cluster.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file; default: jobmaster.toml, if there.")]
File = Annotated[Path | None, typer.Option("--file", help="A standalone cluster's SQLite file.")]
Name = Annotated[str | None, typer.Option("--cluster", help="The cluster's name, where --file holds several.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

CONFIG_FILE = "jobmaster.toml"
CONFIG_VARIABLE = "JOBMASTER_CONFIG"
APP_VARIABLE = "JOBMASTER_APP"


def find_cluster(app: str | None, config: Path | None, file: Path | None, name: str | None) -> "Cluster":
    """The cluster the options name; without options that of `jobmaster.toml` here, with the `app` it names.

    Raises `ConfigurationError` with every fault."""
    # Imported here, as it brings pydantic: `jobmaster version` and `--help` need none of it.
    from jobmaster.builder import ClusterBuilder

    if file is not None:
        if not file.is_file():
            raise ConfigurationError([f"--file {str(file)!r}: no such file; a cluster makes it when it first runs"])
        return ClusterBuilder(held_cluster(file, name)).use_master(f"sqlite:///{file}").build()
    source = "--app" if app else APP_VARIABLE
    app = app or os.environ.get(APP_VARIABLE)
    if app is not None:
        return load_app(app, source)
    named = config or os.environ.get(CONFIG_VARIABLE)
    config = Path(named or CONFIG_FILE)
    if not config.is_file():
        if named is None:
            raise ConfigurationError(
                [f"no cluster given: use --app MODULE:NAME or --file FILE, or run this beside a {CONFIG_FILE}"]
            )
        raise ConfigurationError([f"{config}: no such file; correct --config or {CONFIG_VARIABLE}"])
    app = _named_app(config)
    return load_app(app, f"{config}: app") if app else ClusterBuilder.from_toml(config).build()


def held_cluster(file: Path, name: str | None) -> str:
    """The name of the cluster that the file holds; the one asked for, where there are several."""
    from jobmaster.sqlite import prefixes_in

    prefixes = prefixes_in(os.path.realpath(file))
    clusters = [cluster_of(prefix) for prefix in prefixes]
    known = ", ".join(repr(cluster) for cluster in clusters if cluster) or "none that can be named here"
    if not prefixes:
        raise ConfigurationError([f"--file {str(file)!r}: it holds no cluster; expected a file that one has run on"])
    if name is not None:
        if table_prefix(name) not in prefixes:
            raise ConfigurationError([f"--cluster {quoted(name)}: {str(file)!r} holds no such cluster, but: {known}"])
        return name
    if len(clusters) > 1 or clusters[0] is None:
        raise ConfigurationError([f"--file {str(file)!r}: name its cluster by --cluster; it holds: {known}"])
    return clusters[0]


def _named_app(config: Path) -> str | None:
    try:
        named = tomllib.loads(config.read_text(encoding="utf-8")).get("app")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError([f"{config}: {error}"]) from error
    return named if isinstance(named, str) else None


def load_app(reference: str, source: str = "--app") -> "Cluster":
    """Import `module:name`; the name may be a `Cluster`, a `ClusterBuilder` or a function giving either. Raises
    `ConfigurationError` with what `source` said."""
    from jobmaster.builder import ClusterBuilder
    from jobmaster.cluster import Cluster

    said = f"{source} {quoted(reference)}"
    module_name, _, attribute = reference.partition(":")
    if not module_name.strip(".") or not attribute:
        raise ConfigurationError([f"{said}: expected MODULE:NAME, e.g. shop.jobs:cluster"])
    module = _import(module_name, said)
    if not hasattr(module, attribute):
        raise ConfigurationError(
            [f"{said}: {module_name!r} has no {attribute!r}; expected the name of a Cluster in it"]
        )
    found = getattr(module, attribute)
    if callable(found) and not isinstance(found, (Cluster, ClusterBuilder)):
        found = _call(found, said)
    if isinstance(found, ClusterBuilder):
        found = found.build()
    if not isinstance(found, Cluster):
        raise ConfigurationError(
            [f"{said}: {attribute!r} is {type(found).__name__}; expected a Cluster or a ClusterBuilder"]
        )
    return found


def _call(factory: Callable[[], object], said: str) -> object:
    try:
        found = factory()
    except JobMasterError:
        raise
    except Exception as error:
        fault = f"{said}: calling it failed: {type(error).__name__}: {error}; expected a Cluster, or what gives one"
        raise ConfigurationError([fault]) from error
    if isinstance(found, Coroutine):
        found.close()
    return found


def _import(name: str, said: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except JobMasterError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            fault = f"{said}: there is no module {error.name!r} in {os.getcwd()} or on the Python path"
            raise ConfigurationError([fault]) from error
        # The last line that ran: of the application, or of what it imports.
        frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
        where = f" (at {frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise ConfigurationError(
            [f"{said}: importing {name!r} failed: {type(error).__name__}: {error}{where}"]
        ) from error
