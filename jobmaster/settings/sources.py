"""Where settings come from, and how the sources become one: builder over environment over TOML over defaults.

Every source is read into the same nested mapping before anything is checked, so that one pass reports every fault.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from jobmaster.model.errors import ConfigurationError, quoted
from jobmaster.settings.checks import LOCAL_SCHEMES, cluster_faults, scheme_of
from jobmaster.settings.faults import faults_of
from jobmaster.settings.merging import Tree, all_digits, merge, merge_list, table_of
from jobmaster.settings.models import DEFAULT_MASTER_URL, ENVIRONMENT_PREFIX, STANDALONE_AGENT, ClusterSettings

CONFIG_VARIABLE = "JOBMASTER_CONFIG"


def load_settings(
    given: Mapping[str, Any] | None = None,
    *,
    toml: str | os.PathLike[str] | None = None,
    environment: bool = True,
) -> ClusterSettings:
    """The settings from what was `given` in code, the environment, and the TOML file (`toml`, else the one that
    `JOBMASTER_CONFIG` names). Raises `ConfigurationError` with every fault of all of them."""
    settings, faults = gather_settings(given or {}, toml=toml, environment=environment)
    if settings is None or faults:
        raise ConfigurationError(faults)
    return settings


def gather_settings(
    given: Mapping[str, Any], *, toml: str | os.PathLike[str] | None, environment: bool
) -> tuple[ClusterSettings | None, list[str]]:
    """Like `load_settings`, with the faults as a value for those who find more of them. No settings: there are some."""
    faults: list[str] = []
    path = toml or (os.environ.get(CONFIG_VARIABLE) if environment else None)
    tree: Tree = read_toml(Path(path), faults) if path else {}
    if environment and any(variable.upper().startswith(ENVIRONMENT_PREFIX) for variable in os.environ):
        # Only here and only then, as it takes as long to import as everything else together.
        from jobmaster.settings.environment import read_environment

        agents = {**table_of(tree.get("agents")), **table_of(given.get("agents"))}
        tree = merge(tree, read_environment(agents, faults))
    tree = complete(merge(tree, given), faults)
    try:
        settings = ClusterSettings.model_validate(tree)
    except ValidationError as error:
        return None, faults + faults_of(error, tree) + _unreached(tree, error)
    return settings, faults


def read_toml(path: Path, faults: list[str]) -> Tree:
    """The file's content; what is wrong with it is added to `faults`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        faults.append(f"{path}: no such file; write it with `jobmaster init`, or correct the path or {CONFIG_VARIABLE}")
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        faults.append(f"{path}: not UTF-8 text")
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path}: not valid TOML: {error}")
    return {}


def complete(tree: Tree, faults: list[str]) -> Tree:
    """What follows from what was said: the standalone agent and worker, each worker's agent, slots and prefetch."""
    tree = dict(tree)
    agents, workers = tree.get("agents") or {}, tree.get("workers") or []
    if isinstance(workers, Mapping) and all_digits(workers):
        workers = merge_list([], workers)
    if isinstance(agents, Mapping) and isinstance(workers, (list, tuple)):
        if not agents and not workers:
            workers = [{}]
        master = table_of(tree.get("master"))
        if not agents:
            agents = {STANDALONE_AGENT: {**master, "url": master.get("url", DEFAULT_MASTER_URL)}}
        elif "url" not in master:
            faults.extend(_master_needed(agents))
        tree["agents"] = {
            name: {**agent, "name": name} if isinstance(agent, Mapping) else agent for name, agent in agents.items()
        }
        defaults = {key: value for key, value in table_of(tree.get("defaults")).items() if key in {"slots", "prefetch"}}
        if len(agents) == 1:
            defaults["agent"] = next(iter(agents))
        tree["workers"] = [{**defaults, **worker} if isinstance(worker, Mapping) else worker for worker in workers]
    return tree


def _unreached(tree: Tree, error: ValidationError) -> list[str]:
    """Faults between agents and workers: pydantic looks for them only once it has found no others."""
    agents, workers = tree.get("agents"), tree.get("workers")
    if not isinstance(agents, Mapping) or not isinstance(workers, (list, tuple)):
        return []
    if any(not entry["loc"] for entry in error.errors(include_input=False, include_url=False)):
        return []
    named = [(worker.get("agent"), worker.get("name")) for worker in workers if isinstance(worker, Mapping)]
    texts = [
        (agent if isinstance(agent, str) else "", name if isinstance(name, str) else None) for agent, name in named
    ]
    return cluster_faults(agents, texts)


def _master_needed(agents: Mapping[str, Any]) -> list[str]:
    """A local file cannot be the master of agents that several machines share."""
    for name, agent in agents.items():
        url = table_of(agent).get("url")
        scheme = scheme_of(url.get_secret_value() if isinstance(url, SecretStr) else str(url or ""))
        if scheme and scheme not in LOCAL_SCHEMES:
            fault = (
                f"master.url: not given, but agent {quoted(name)} is a {scheme} server, which machines may share; "
                f"say which database is the master: .use_master(url), [master] url = … or JOBMASTER_MASTER__URL"
            )
            return [fault]
    return []
