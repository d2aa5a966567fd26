"""Which environments there are: plugins by entry point, and named variants of them.

Entry-point names are environment ids, so that listing needs the metadata only; a plugin's code is
loaded when one of its environments is made.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import gymnasium

from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import (
    EnvError,
    InvalidInput,
    InvalidOptions,
    MissingData,
    MissingDependency,
    UnknownEnvironment,
)
from steppo_env.options import operator_fields

__all__ = ["Catalogue", "EnvSpec", "env_class", "make", "register_with_gymnasium", "registered_ids"]

GROUP = "steppo_env.environments"


@cache
def _entry_points() -> Mapping[str, str]:
    return {point.name: point.value for point in sorted(entry_points(group=GROUP))}


def registered_ids() -> tuple[str, ...]:
    """Return the ids of the installed environments, in order, without loading any."""
    return tuple(_entry_points())


@cache
def env_class(env_id: str) -> type[AnyEnv]:
    """Load the class of a registered environment.

    Raises:
        UnknownEnvironment: No installed package registers this id.
        MissingDependency: Its plugin needs a package that is not installed.
        EnvError: What the entry point names is not a StepEnv with this id.
    """
    if env_id not in _entry_points():
        raise _unknown(env_id, registered_ids())
    (point,) = entry_points(group=GROUP, name=env_id)
    try:
        loaded = point.load()
    except ImportError as error:
        raise MissingDependency(
            f"{env_id} cannot be loaded: {error}; install the extra that its README names",
            env_id=env_id,
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, StepEnv)):
        raise EnvError(f"the entry point {point.value} of {env_id} is not a StepEnv")
    if loaded.env_id != env_id:
        raise EnvError(f"{point.value} is registered as {env_id} but says it is {loaded.env_id}")
    return loaded


def make(env_id: str, **options: Any) -> AnyEnv:
    """Make a registered environment.

    >>> make("steppo/KeyDoor-v0", size=5).env_id
    'steppo/KeyDoor-v0'
    """
    return env_class(env_id)(**options)


def register_with_gymnasium() -> None:
    """Let `gymnasium.make` know every installed environment. Loads none of them."""
    for env_id, value in _entry_points().items():
        if env_id not in gymnasium.registry:
            gymnasium.register(id=env_id, entry_point=value)


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """An environment as it is offered: a registered one, or a named variant with options.

    Attributes:
        name: What callers ask for: a registered id or the variant's name.
        env_id: The registered environment behind it.
        options: What the operator set; callers cannot change these.
    """

    name: str
    env_id: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, caller_options: Mapping[str, Any] | None = None) -> AnyEnv:
        """Make the environment for a caller who may not touch the operator's options.

        Raises:
            InvalidOptions: An option is unknown, out of bounds or the operator's to set.
        """
        wanted = dict(caller_options or {})
        cls = env_class(self.env_id)
        taken = sorted(set(wanted) & (operator_fields(cls.options_type) | set(self.options)))
        if taken:
            raise InvalidOptions(
                f"{', '.join(taken)}: set by whoever runs {self.name}, not by its callers; "
                "ask for a named variant instead",
                options=list(taken),
            )
        return cls(**{**self.options, **wanted})


class Catalogue:
    """The environments that one process offers, by name."""

    def __init__(self, specs: Mapping[str, EnvSpec] | None = None) -> None:
        self._specs = {env_id: EnvSpec(env_id, env_id) for env_id in registered_ids()}
        self._specs.update(specs or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, registered ids first."""
        return tuple(self._specs)

    def get(self, name: str) -> EnvSpec:
        """Return what is offered under a name.

        Raises:
            UnknownEnvironment: Nothing is.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise _unknown(name, self.names)
        return spec

    @classmethod
    def from_toml(cls, path: Path) -> "Catalogue":
        """Read named variants from the `[environments.NAME]` tables of a TOML file.

        Each table has `env_id` and, optionally, `options`. A relative path among the options is
        looked for beside the file first, then in the working directory.

        Raises:
            MissingData: The file is not there, or a path in it names nothing.
            InvalidInput: The file is not TOML of this form.
            UnknownEnvironment: A variant's env_id is not registered.
            InvalidOptions: A variant's options do not fit its environment.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingData(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"{path} is not TOML: {error}") from error
        tables = document.get("environments", {})
        if not isinstance(tables, dict):
            raise InvalidInput(f"{path}: environments is a table of tables")
        specs = {name: _variant(path, name, table) for name, table in tables.items()}
        return cls(specs)


def _variant(path: Path, name: str, table: object) -> EnvSpec:
    where = f"{path}: [environments.{name}]"
    if not isinstance(table, dict) or not isinstance(table.get("env_id"), str):
        raise InvalidInput(f'{where} needs env_id = "steppo/..."')
    unknown = sorted(set(table) - {"env_id", "options"})
    if unknown:
        raise InvalidInput(f"{where} has env_id and options, not {', '.join(unknown)}")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise InvalidInput(f"{where}: options is a table")
    if name in registered_ids() and name != table["env_id"]:
        raise InvalidInput(f"{where}: this name is another environment's id")
    options_type = env_class(table["env_id"]).options_type
    resolved = {
        key: _resolve(where, path.parent, key, value)
        if key in operator_fields(options_type)
        else value
        for key, value in options.items()
    }
    spec = EnvSpec(name, table["env_id"], resolved)
    spec.make()  # a mistake in the file is found at start, not at the first session
    return spec


def _resolve(where: str, folder: Path, key: str, value: object) -> str:
    candidates = [folder / str(value), Path(str(value))]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate.resolve())
    tried = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise MissingData(f"{where}: {key}: there is no {tried}")


def _unknown(name: str, names: tuple[str, ...]) -> UnknownEnvironment:
    shown = name[:100]
    close = get_close_matches(shown, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return UnknownEnvironment(
        f"there is no environment {shown!r}; the environments are: {', '.join(names)}.{hint}",
        environments=[*names],
    )
